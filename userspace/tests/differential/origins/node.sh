# Node's own server.
cat > server.js <<'END'
const http = require("http"), fs = require("fs");
http.createServer((request, response) => {
  fs.appendFileSync("seen", `${request.method} ${request.url} HTTP/${request.httpVersion}|${request.headers.host}\n`);
  request.resume();
  request.on("end", () => response.end("ok)"));
}).listen(process.env.PORT, "127.0.0.1");
END
exec node server.js
