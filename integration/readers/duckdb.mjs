// Reads drops with DuckDB, all in one start: node duckdb.mjs REQUEST.
//
// REQUEST is a JSON file, see read.go. The rows go to its "out", tab separated:
// place of the file in the request, event_id, event_time and ingest_time in
// ms UTC, and the first 16 hex digits of the MD5 of the row's canonical text
// (with "whole" a JSON array of the texts of its columns). Standard output gets
// {version, schemas: [{leaves, types, files}]}.
//
// Canonical text: "-" null · LENGTH:TEXT a string, length in bytes · iN an
// integer · fN a double's 64 bits as an integer · b0 b1 · tN ms since 1970 UTC ·
// lN( and N elements · o and the members. truth.go and arrow.py write the same.
import { readFileSync } from 'node:fs';
import { DuckDBInstance } from '@duckdb/node-api';

const request = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const parquet = request.format === 'parquet';
const quote = (s) => `'${s.replaceAll("'", "''")}'`;
const name = (s) => `"${s.replaceAll('"', '""')}"`;
const milliseconds = (e) => (parquet ? `epoch_ms(${e})` : e);

function text(column, e, depth) {
  const members = (of) => ["'o'", ...column.members.map((m) => text(m, `${of}.${name(m.name)}`, depth + 1))].join('||');
  const list = (element) => `'l'||len(${e})||'('||array_to_string(list_transform(${e}, lambda x${depth}: ${element}), '')`;
  const string = (s) => `coalesce(strlen(${s})||':'||${s}, '-')`;
  switch (column.type) {
    case 'string': case 'json': return string(e);
    case 'int8': case 'int32': case 'int64': return `coalesce('i'||${e}::VARCHAR, '-')`;
    case 'double': return `coalesce('f'||${e}::BIT::BIGINT::VARCHAR, '-')`;
    case 'bool': return `CASE WHEN ${e} THEN 'b1' WHEN NOT ${e} THEN 'b0' ELSE '-' END`;
    case 'time': return `coalesce('t'||${milliseconds(e)}::VARCHAR, '-')`;
    case 'list': return `CASE WHEN ${e} IS NULL THEN '-' ELSE ${list(string(`x${depth}`))} END`;
    case 'struct': return `CASE WHEN ${e} IS NULL THEN '-' ELSE ${members(e)} END`;
    case 'structs': return `CASE WHEN ${e} IS NULL THEN '-' ELSE ${list(members(`x${depth}`))} END`;
    default: throw new Error(`column ${column.name}: no such type: ${column.type}`);
  }
}

// jsonType is what DuckDB is told to read a member of NDJSON as.
function jsonType(column) {
  const object = () => `STRUCT(${column.members.map((m) => `${name(m.name)} ${jsonType(m)}`).join(', ')})`;
  switch (column.type) {
    case 'struct': return object();
    case 'structs': return `${object()}[]`;
    case 'list': return 'VARCHAR[]';
    default: return { string: 'VARCHAR', time: 'BIGINT', int8: 'TINYINT', int32: 'INTEGER', int64: 'BIGINT', double: 'DOUBLE', bool: 'BOOLEAN' }[column.type];
  }
}

// leaf is a node's physical and logical type, in the words that arrow.py uses.
function leaf(node) {
  const logical = node.logical_type ?? '';
  let words = '-';
  if (/^Timestamp/.test(logical)) {
    words = `Timestamp(${/unit=TimeUnit\(MILLIS=Milli/.test(logical) ? 'ms' : 'other'},${/isAdjustedToUTC=1/.test(logical) ? 'UTC' : 'local'})`;
  } else if (/^Int/.test(logical)) {
    words = `${/isSigned=1/.test(logical) ? 'Int' : 'UInt'}${logical.match(/bitWidth=([^]),/)[1].charCodeAt(0)}`; // the width comes as a character
  } else if (logical !== '') {
    words = logical.replace(/Type\(.*/s, '');
  }
  return `${node.type} ${words}`;
}

// schemas gives the distinct ones, with the files that have each.
async function schemas(connection) {
  const result = await connection.stream(`SELECT place, name, type, repetition_type, num_children, logical_type
    FROM (SELECT * FROM parquet_schema(getvariable('files'))) s JOIN files ON s.file_name = files.name_of ORDER BY place, column_id`);
  const found = new Map();
  let at = -1, leaves = [], above = [];
  const end = () => {
    if (at < 0) return;
    const key = leaves.join('\n');
    if (!found.has(key)) found.set(key, { leaves, files: [] });
    found.get(key).files.push(at);
  };
  for await (const rows of result.yieldRowObjectJson()) {
    for (const node of rows) {
      if (Number(node.place) !== at) {
        end();
        [at, leaves, above] = [Number(node.place), [], [{ path: '', def: 0, rep: 0, left: Number(node.num_children) }]];
        continue; // the root
      }
      while (above.at(-1).left === 0) above.pop();
      const up = above.at(-1);
      up.left--;
      const path = up.path + node.name;
      const def = up.def + (node.repetition_type === 'REQUIRED' ? 0 : 1);
      const rep = up.rep + (node.repetition_type === 'REPEATED' ? 1 : 0);
      if (node.num_children) above.push({ path: `${path}.`, def, rep, left: Number(node.num_children) });
      else leaves.push(`${path} ${leaf(node)} ${def} ${rep}`);
    }
  }
  end();
  return [...found.values()];
}

async function main() {
  const instance = await DuckDBInstance.create(':memory:', { threads: '2', memory_limit: '1GB' });
  const connection = await instance.connect();
  // Nothing here may reach the network, nor the machine's settings.
  await connection.run("SET autoinstall_known_extensions=false; SET TimeZone='Asia/Kathmandu'; SET preserve_insertion_order=false");
  await connection.run('CREATE TABLE files (place INTEGER, name_of VARCHAR)');
  for (let i = 0; i < request.files.length; i += 1000) {
    await connection.run(`INSERT INTO files VALUES ${request.files.slice(i, i + 1000).map((f, k) => `(${i + k}, ${quote(f)})`).join(', ')}`);
  }
  await connection.run('SET VARIABLE files = (SELECT list(name_of ORDER BY place) FROM files)');
  const answer = { version: (await connection.runAndReadAll('SELECT version()')).getRows()[0][0], schemas: [] };

  let from = "read_parquet(getvariable('files'), filename=true, hive_partitioning=false)";
  if (parquet) {
    answer.schemas = await schemas(connection);
    for (const s of answer.schemas) {
      const described = await connection.runAndReadAll(`DESCRIBE SELECT * FROM read_parquet(${quote(request.files[s.files[0]])}, hive_partitioning=false)`);
      s.types = described.getRowObjectsJson().map((c) => `${c.column_name} ${c.column_type.replaceAll('"', '')}`);
    }
  } else {
    const members = request.columns.map((c) => `${quote(c.name)}: ${quote(jsonType(c))}`).join(', ');
    from = `read_json(getvariable('files'), format='newline_delimited', columns={${members}}, filename=true, hive_partitioning=false)`;
  }
  const apart = (of) => (request.columns.some((c) => c.name === of) ? milliseconds(`r.${of}`) : '0');
  const texts = request.columns.filter((c) => !request.apart.includes(c.name)).map((c) => text(c, `r.${name(c.name)}`, 1));
  const row = request.whole ? `to_json([${texts.join(', ')}])` : `left(md5(${texts.join(' || ')}), 16)`;
  await connection.run(`COPY (SELECT place, r.event_id, ${apart('event_time')}, ${apart('ingest_time')}, ${row}
    FROM ${from} r JOIN files ON r.filename = files.name_of) TO ${quote(request.out)} (FORMAT csv, DELIMITER '\t', HEADER false)`);
  process.stdout.write(JSON.stringify(answer));
  connection.closeSync();
  instance.closeSync();
}

main().catch((error) => {
  console.error(String(error.message ?? error).slice(0, 4000));
  process.exit(1);
});
