/** The Go clients in `go/`: a program that is built where Go is and the modules are, or can be fetched. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { projectRoot } from './java-tools.ts';
import { isInstalled } from './target.ts';

const cwd = join(projectRoot(), 'test/compat/go');
const env = { ...process.env, GOFLAGS: '-mod=mod -buildvcs=false' };

export function hasGoClients(): boolean {
  if (!isInstalled('go', 'version')) return false;
  return spawnSync('go', ['mod', 'download'], { cwd, env, stdio: 'ignore', timeout: 60_000 }).status === 0;
}

/** Builds the program into the folder and answers its path. */
export function buildGoClients(folder: string): string {
  const program = join(folder, 'compat');
  const { status, stderr } = spawnSync('go', ['build', '-o', program, '.'], { cwd, env, encoding: 'utf8' });
  if (status !== 0) throw new Error(`go build failed:\n${stderr}`);
  return program;
}
