// Runs dynalite, which keeps all in memory, on loopback: node dynalite.cjs PORT.
// Its own command listens on every interface.
const dynalite = require('dynalite');

const port = Number(process.argv[2]);
dynalite({ createTableMs: 0, updateTableMs: 0, deleteTableMs: 0 }).listen(port, '127.0.0.1', () => {
  console.log(`dynalite listens on 127.0.0.1:${port}`);
});
