// Receives NetFlow v5 and v9 and prints what node-netflowv9 makes of it: see receive.py.
// Usage: node receive.js udp:PORT ...
'use strict';

const NetFlow = require('node-netflowv9');

for (const place of process.argv.slice(2)) {
	const port = Number(place.replace('udp:', ''));
	const print = (message) => {
		for (const flow of message.flows)
			console.log(JSON.stringify({ port, header: message.header, record: flow }));
	};
	new NetFlow({ port, host: '127.0.0.1', cb: print, templateCb: () => {} });
}

// The test closes standard input when the sockets are empty: two more rounds of the loop decode what was read.
process.stdin.on('end', () => setImmediate(() => setImmediate(() => process.exit(0))));
process.stdin.resume();
