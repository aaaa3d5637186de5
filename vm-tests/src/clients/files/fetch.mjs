// Asks for a URL with one of Node's HTTP clients and prints what it got.
import { createRequire } from "node:module";

const [kind, url] = process.argv.slice(2);
const require = createRequire(`${process.env.TOOLS}/node/package.json`);
if (kind === "axios") {
  try {
    const answer = await require("axios").get(url, { responseType: "text" });
    console.log(answer.status, answer.data);
  } catch (error) {
    console.log(error.message, JSON.stringify(error.response?.data));
    process.exitCode = 1;
  }
} else {
  const get = kind === "undici" ? require("undici").fetch : fetch;
  const answer = await get(url);
  console.log(answer.status, answer.statusText, await answer.text());
  process.exitCode = answer.ok ? 0 : 1;
}
