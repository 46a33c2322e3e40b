// Renders TeX to MathML: one JSON object a line in, one a line out.
//   in:  {"tex": "...", "display": true}
//   out: {"mathml": "..."} or {"error": "..."}
// Arguments: the path of temml.min.js, the path of a JSON file of macros.
"use strict";

const fs = require("fs");
const readline = require("readline");

const [library, macroFile] = process.argv.slice(2);
const temml = new Function(fs.readFileSync(library, "utf8") + ";return temml")();
const macros = JSON.parse(fs.readFileSync(macroFile, "utf8"));

function render({ tex, display }) {
  try {
    const mathml = temml.renderToString(tex, {
      displayMode: display,
      // Long formulas inside a sentence may break after a relation.
      wrap: display ? "none" : "tex",
      throwOnError: true,
      // A copy, so that a \gdef in one formula does not reach the next.
      macros: { ...macros },
    });
    return { mathml };
  } catch (error) {
    // Temml underlines the fault with combining characters: not for a log file.
    const message = String(error.message).split("\n")[0].replace(/\u0332/g, "");
    return { error: message.trim().replace(/:$/, "") };
  }
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  process.stdout.write(JSON.stringify(render(JSON.parse(line))) + "\n");
});
