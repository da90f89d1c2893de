// A sidecar as one writes it with Node's http server and undici. Arguments: port, upstream's URL, file of tokens, CA.
const http = require("node:http");
const fs = require("node:fs");
const { Pool } = require("undici");

const [port, upstream, tokensFile, ca] = process.argv.slice(2);
const tokens = new Map(Object.entries(JSON.parse(fs.readFileSync(tokensFile, "utf8"))));
const pool = new Pool(upstream, { connections: 256, connect: { ca: fs.readFileSync(ca) } });
const hop = new Set(["connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "authorization"]);

function passed(raw) {
  const out = [];
  for (let i = 0; i < raw.length; i += 2) if (!hop.has(raw[i].toLowerCase())) out.push(raw[i], raw[i + 1]);
  return out;
}

const server = http.createServer((request, response) => {
  const parts = request.url.split("/", 3);
  const token = parts.length === 3 ? tokens.get(parts[1].slice(1)) : undefined;
  if (token === undefined) {
    response.writeHead(403).end("denied");
    return;
  }
  const path = request.url.slice(parts[1].length + parts[2].length + 2);
  const headers = passed(request.rawHeaders);
  headers.push("authorization", `Bearer ${token}`);
  const body = request.headers["content-length"] || request.headers["transfer-encoding"] ? request : null;
  pool.stream({ path, method: request.method, headers, body, opaque: response, responseHeaders: "raw" }, (got) => {
    const raw = got.headers.map(String);
    got.opaque.writeHead(got.statusCode, passed(raw));
    return got.opaque;
  }, (error) => { if (error) response.destroy(); });
});
server.keepAliveTimeout = 60000;
server.requestTimeout = 60000;
server.listen(Number(port), "127.0.0.1");
