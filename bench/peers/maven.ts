/** Jars from Maven Central: a pom names them, Maven copies them into a folder once. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

export interface Jars {
  /** For who waits. */
  what: string;
  pom: string;
  /** The folder they go to. */
  target: string;
  args: readonly string[];
}

/** True if they are there. Else it has said why not. */
export function resolveJars({ what, pom, target, args }: Jars): boolean {
  // Maven copies jar by jar: the mark is written when the last one is there.
  const mark = path.join(target, '.done');
  if (fs.existsSync(mark)) return true;
  console.error(`Installing ${what} into ${target} with Maven …`);
  fs.mkdirSync(target, { recursive: true });
  const all = ['-q', '-B', '-f', pom, ...args, `-Djars=${target}`, 'package'];
  const { status, error } = spawnSync('mvn', all, { stdio: ['ignore', 2, 2] });
  if (status !== 0) {
    console.error(error ? 'mvn is not on the PATH.' : 'Maven failed (see above).');
    return false;
  }
  fs.writeFileSync(mark, '');
  return true;
}
