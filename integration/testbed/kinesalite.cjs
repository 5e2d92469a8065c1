// Runs kinesalite on loopback: node kinesalite.cjs PORT. Its own command
// listens on every interface.
const kinesalite = require('kinesalite');

// A client killed while it sends a request ends kinesalite, which throws then;
// the service it stands for only loses that request.
process.on('uncaughtException', (err) => {
  if (err.code !== 'ECONNRESET') throw err;
});

const port = Number(process.argv[2]);
kinesalite({ createStreamMs: 0, updateStreamMs: 0, deleteStreamMs: 0, shardLimit: 1000 }).listen(port, '127.0.0.1', () => {
  console.log(`kinesalite listens on 127.0.0.1:${port}`);
});
