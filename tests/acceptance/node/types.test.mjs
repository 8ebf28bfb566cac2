/** The types of client.js and rows.js: that they hold, and that they name what there is. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import ts from "typescript";

import { loadClient } from "../client_js/server.mjs";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const STATIC = fileURLToPath(new URL("../../../realtime/static/realtime/", import.meta.url));
const program = ts.createProgram([`${STATIC}client.d.ts`, `${STATIC}rows.d.ts`], {
  strict: true,
  noEmit: true,
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  lib: ["lib.es2022.d.ts", "lib.dom.d.ts"],
  types: [],
});

test("the types hold in themselves", () => {
  const problems = ts.getPreEmitDiagnostics(program).map(({ messageText }) => messageText);
  assert.deepEqual(problems, []);
});

test("a page that uses all of them compiles, and mistakes do not", () => {
  const { status, stdout } = spawnSync(process.execPath, ["node_modules/typescript/bin/tsc", "--noEmit", "-p", "."], {
    cwd: HERE,
    encoding: "utf8",
  });
  assert.equal(status, 0, stdout);
});

/** The names that a module's types export, with the members of each class. */
function typed(name) {
  const checker = program.getTypeChecker();
  const module = checker.getSymbolAtLocation(program.getSourceFile(STATIC + name));
  const found = {};
  for (const exported of checker.getExportsOfModule(module)) {
    const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported;
    if (!(symbol.flags & ts.SymbolFlags.Value)) continue;
    const members = symbol.flags & ts.SymbolFlags.Class ? [...symbol.members.values()] : [];
    found[exported.name] = members
      .filter(({ flags }) => flags & (ts.SymbolFlags.Method | ts.SymbolFlags.Accessor | ts.SymbolFlags.Property))
      .map((member) => member.name)
      .filter((member) => !member.startsWith("__"))
      .sort();
  }
  return found;
}

/** The same of the module itself. What begins with an underscore is private. */
function existing(module) {
  const found = {};
  for (const [name, value] of Object.entries(module)) {
    const isClass = /^class\b/.test(Function.prototype.toString.call(value));
    const members = isClass ? Object.getOwnPropertyNames(value.prototype) : [];
    found[name] = members.filter((member) => member !== "constructor" && !member.startsWith("_")).sort();
  }
  return found;
}

for (const name of ["client", "rows"]) {
  test(`the types of ${name}.js name what it exports, and every member of its classes`, async () => {
    assert.deepEqual(typed(`${name}.d.ts`), existing({ ...(await loadClient(`${name}.js`)) }));
  });
}
