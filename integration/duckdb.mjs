// Runs SQL in an in-memory DuckDB and prints the last statement's rows, one
// JSON object a line: node duckdb.mjs "SELECT ..." ["SELECT ..." ...].
// Integers beyond 2^53, timestamps, dates and UUIDs come as strings.
import { DuckDBInstance } from '@duckdb/node-api';

const statements = process.argv.slice(2);
if (statements.length === 0) {
  console.error('usage: node duckdb.mjs SQL...');
  process.exit(2);
}
try {
  const instance = await DuckDBInstance.create(':memory:', { threads: '2' });
  const connection = await instance.connect();
  // Nothing here may reach the network, nor the machine's settings.
  await connection.run("SET autoinstall_known_extensions=false; SET TimeZone='UTC'");
  let reader;
  for (const sql of statements) {
    reader = await connection.runAndReadAll(sql);
  }
  for (const row of reader.getRowObjectsJson()) {
    process.stdout.write(JSON.stringify(row) + '\n');
  }
  connection.closeSync();
  instance.closeSync();
} catch (error) {
  console.error(String(error.message ?? error));
  process.exit(1);
}
