/** A JVM with members of share groups (`java/ShareMembers.java`): scenarios by name, answered by what the members saw. */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { projectRoot } from './java-tools.ts';

/** Longer than any scenario takes on a busy machine. */
const SCENARIO_MS_MAX = 90_000;

export class ShareMembers {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<string, { resolve: (text: string) => void; reject: (error: Error) => void }>();
  readonly #ready: Promise<void>;

  constructor(jars: string, bootstrap: string) {
    const root = projectRoot();
    this.#child = spawn(
      'java',
      [
        '-Xmx512M',
        '-XX:TieredStopAtLevel=1',
        '-XX:+UseSerialGC',
        `-Dlog4j2.configurationFile=${join(root, 'bench/peers/kafka/log4j2.properties')}`,
        '-cp',
        `${jars}/*`,
        join(root, 'test/compat/java/ShareMembers.java'),
        bootstrap,
      ],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    let isReady = (): void => {};
    this.#ready = new Promise((resolve, reject) => {
      isReady = resolve;
      this.#child.once('error', reject);
      this.#child.once('exit', (code) => reject(new Error(`the JVM of the members ended with ${code}`)));
    });
    this.#ready.catch(() => {});
    if (!this.#child.stdout) throw new Error('the JVM has no standard output');
    createInterface(this.#child.stdout).on('line', (line) => {
      const [kind, id, ...words] = line.split(' ');
      if (kind === 'ready') isReady();
      if (kind === 'held') this.#waiting.get('held')?.resolve(id);
      if (kind === 'result') this.#waiting.get(id)?.resolve(words.join(' '));
      if (kind === 'e') this.#waiting.get(id)?.reject(new Error(words.join(' ')));
    });
  }

  /** What the members of a scenario saw; each needs a topic of its own. */
  async run(scenario: string, topic: string, group: string, number = 0): Promise<string> {
    await this.#ready;
    const key = scenario === 'hold' ? 'held' : topic;
    let timer: NodeJS.Timeout | undefined;
    const result = new Promise<string>((resolve, reject) => {
      this.#waiting.set(key, { resolve, reject });
      timer = setTimeout(() => reject(new Error(`${scenario} did not end`)), SCENARIO_MS_MAX);
    });
    this.#child.stdin?.write(`${scenario} ${topic} ${group} ${number}\n`);
    return result.finally(() => clearTimeout(timer));
  }

  /** Without any goodbye. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    await ended;
  }
}
