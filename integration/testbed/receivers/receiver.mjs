// A receiver of lines by Node's tls, as a Node program would have it:
// node receiver.mjs PORT CERT KEY CA OUT. It demands a client's certificate.
// What was read is in the file before more is read.
import fs from 'node:fs';
import tls from 'node:tls';

const [port, cert, key, ca, out] = process.argv.slice(2);
const file = fs.openSync(out, 'a');
const own = { cert: fs.readFileSync(cert), key: fs.readFileSync(key), ca: fs.readFileSync(ca) };

tls.createServer({ ...own, requestCert: true, rejectUnauthorized: true }, (peer) => {
  let rest = Buffer.alloc(0);
  peer.on('data', (part) => {
    const all = Buffer.concat([rest, part]);
    const end = all.lastIndexOf(10) + 1;
    for (let at = 0; at < end; ) at += fs.writeSync(file, all, at, end - at);
    rest = all.subarray(end);
  });
  peer.on('error', (e) => console.error(e.message));
}).on('tlsClientError', (e) => console.error(e.message)).listen(Number(port), '127.0.0.1');
