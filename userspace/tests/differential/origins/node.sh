# Node's own servers.
cat > server.js <<'END'
const http = require("http"), http2 = require("http2"), fs = require("fs");
const answer = (request, response) => {
  const host = request.headers[":authority"] || request.headers.host;
  fs.appendFileSync("seen", `${request.method} ${request.url} HTTP/${request.httpVersion}|${host}\n`);
  request.resume();
  request.on("end", () => response.end("ok)"));
};
const secure = () => ({ key: fs.readFileSync("key.pem"), cert: fs.readFileSync("cert.pem"), allowHTTP1: true });
const server = process.env.TLS ? http2.createSecureServer(secure(), answer) : http.createServer(answer);
server.listen(process.env.PORT, "127.0.0.1");
END
exec node server.js
