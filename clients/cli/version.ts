/** The version of the package that this file is of. */
import { readFileSync } from 'node:fs';

export function version(): string {
  for (const up of ['../../package.json', '../../../package.json', '../../../../package.json']) {
    try {
      const found: { name?: string; version: string } = JSON.parse(readFileSync(new URL(up, import.meta.url), 'utf8'));
      if (found.name === 'millrace') return found.version;
    } catch {
      // Not there: a build folder lies deeper than `dist`.
    }
  }
  return '(unknown version)';
}
