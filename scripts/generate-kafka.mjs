// Writes protocol/kafka/messages.ts and apis.ts from the definitions beside them. Needs a build of the generator:
// `npx tsc && node scripts/generate-kafka.mjs` (MILLRACE_DIST names another build folder than dist).
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const root = resolve(import.meta.dirname, '..');
const folder = join(root, 'protocol/kafka');
const built = resolve(root, process.env.MILLRACE_DIST ?? 'dist', 'protocol/kafka');
const { parseDefinitions } = await import(pathToFileURL(join(built, 'definition.js')).href);
const { generateApis, generateMessages } = await import(pathToFileURL(join(built, 'generate.js')).href);

const files = readdirSync(folder)
  .filter((name) => name.endsWith('.def'))
  .sort();
const definitions = parseDefinitions(...files.map((name) => readFileSync(join(folder, name), 'utf8')));
writeFileSync(join(folder, 'messages.ts'), generateMessages(definitions));
writeFileSync(join(folder, 'apis.ts'), generateApis(definitions));
