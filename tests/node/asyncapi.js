// Prints what AsyncAPI's own parser holds against a document, one line each; exit code 1 if any is an error.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const ERROR = 0;
const { diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
for (const { code, message, path, severity } of diagnostics) {
  console.log(`${severity === ERROR ? "error" : "hint"} ${code} at ${path.join(".")}: ${message}`);
}
process.exitCode = diagnostics.some(({ severity }) => severity === ERROR) ? 1 : 0;
