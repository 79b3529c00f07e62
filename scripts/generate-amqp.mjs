// Writes protocol/amqp/methods.ts from methods.def. Needs a build of the generator: `npx tsc && node scripts/generate-amqp.mjs`
// (MILLRACE_DIST names another build folder than dist).
import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const root = resolve(import.meta.dirname, '..');
const folder = join(root, 'protocol/amqp');
const built = resolve(root, process.env.MILLRACE_DIST ?? 'dist', 'protocol/amqp');
const { parseMethods } = await import(pathToFileURL(join(built, 'definition.js')).href);
const { generateMethods } = await import(pathToFileURL(join(built, 'generate.js')).href);

writeFileSync(
  join(folder, 'methods.ts'),
  generateMethods(parseMethods(readFileSync(join(folder, 'methods.def'), 'utf8'))),
);
