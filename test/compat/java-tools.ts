/**
 * Kafka's own command-line tools for the tests: where their jars are, and one JVM that runs them (`java/ToolServer.java`),
 * because a JVM for each command would cost a second each. The jars are never downloaded by a test: they are where
 * MILLRACE_KAFKA_TOOLS says, or where `npm run bench` and the conformance tests keep them.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';

/** Longer than the 60 s after which Kafka's clients give up, so that their own words are seen. */
const TOOL_MS_MAX = 75_000;

export interface ToolResult {
  code: number;
  out: string;
  err: string;
}

/** A tool that goes on until it is stopped or has done its work. */
export interface RunningTool {
  readonly result: Promise<ToolResult>;
  /** The last of what it has said so far. */
  text(): string;
  /** Resolves once standard output so far fits the pattern. */
  prints(pattern: RegExp): Promise<string>;
  /** What Ctrl-C does: runs the shutdown hooks. */
  stop(): Promise<ToolResult>;
}

interface Task {
  id: string;
  out: string;
  err: string;
  waiting: { pattern: RegExp; resolve: (text: string) => void }[];
  finish(code: number): void;
}

/** The folder with the tools' jars, or undefined where there are none or no Java. */
export function findToolJars(): string | undefined {
  const folder =
    process.env['MILLRACE_KAFKA_TOOLS'] ?? join(homedir(), '.cache', 'millrace-peers', 'kafka', 'tools-4.3.1');
  if (!existsSync(folder)) return undefined;
  return spawnSync('java', ['-version'], { stdio: 'ignore' }).status === 0 ? folder : undefined;
}

/** The project's folder; tests run from a build folder at any depth of it. */
export function projectRoot(): string {
  let folder = import.meta.dirname;
  while (!existsSync(join(folder, 'package-lock.json'))) folder = dirname(folder);
  return folder;
}

export class JavaTools {
  readonly #child: ChildProcess;
  readonly #tasks = new Map<string, Task>();
  readonly #ready: Promise<void>;
  #lastId = 0;

  constructor(jars: string) {
    const root = projectRoot();
    const log = join(root, 'bench/peers/kafka/log4j2.properties');
    this.#child = spawn(
      'java',
      [
        '-Xmx512M',
        '-XX:TieredStopAtLevel=1',
        '-XX:+UseSerialGC',
        '--add-opens=java.base/java.lang=ALL-UNNAMED',
        `-Dlog4j2.configurationFile=${log}`,
        '-cp',
        `${jars}/*`,
        join(root, 'test/compat/java/ToolServer.java'),
      ],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    let isReady = (): void => {};
    this.#ready = new Promise((resolve, reject) => {
      isReady = resolve;
      this.#child.once('error', reject);
      this.#child.once('exit', (code) => reject(new Error(`the JVM of the tools ended with ${code}`)));
    });
    this.#ready.catch(() => {});
    if (!this.#child.stdout) throw new Error('the JVM has no standard output');
    createInterface(this.#child.stdout).on('line', (line) => {
      const [kind, id, text] = line.split('\t');
      if (kind === 'ready') isReady();
      const task = this.#tasks.get(id);
      if (!task) return;
      if (kind === 'exit') task.finish(Number(text));
      else if (kind === 'out') task.out += Buffer.from(text, 'base64').toString();
      else task.err += Buffer.from(text, 'base64').toString();
      task.waiting = task.waiting.filter(({ pattern, resolve }) => {
        if (!pattern.test(task.out)) return true;
        resolve(task.out);
        return false;
      });
    });
  }

  /** Runs a class to its end. A bare name means `org.apache.kafka.tools.NAME`. */
  async run(className: string, args: readonly string[], input: string | Buffer = ''): Promise<ToolResult> {
    const { result, text } = await this.start(className, args, input);
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<never>((_, reject) => {
      const late = (): void => reject(new Error(`${className} ${args.join(' ')} did not end:\n${text()}`));
      timer = setTimeout(late, TOOL_MS_MAX);
    });
    return Promise.race([result, limit]).finally(() => clearTimeout(timer));
  }

  async start(className: string, args: readonly string[], input: string | Buffer = ''): Promise<RunningTool> {
    await this.#ready;
    const id = String(++this.#lastId);
    const full = /^(kafka|org|com)\./.test(className) ? className : `org.apache.kafka.tools.${className}`;
    const base64 = (text: string | Buffer): string => Buffer.from(text).toString('base64');
    let task: Task;
    const result = new Promise<ToolResult>((resolve) => {
      task = {
        id,
        out: '',
        err: '',
        waiting: [],
        finish: (code) => {
          // Some tools print whatever was thrown, also what takes them out of `exit` here.
          const err = task.err.replace(/exit \d+\nToolServer\$Exited: exit \d+\n+/g, '');
          resolve({ code, out: task.out, err });
        },
      };
      this.#tasks.set(id, task);
    });
    this.#child.stdin?.write(`${['run', id, full, base64(input), ...args.map(base64)].join('\t')}\n`);
    return {
      result,
      text: () => `${task.out}\n${task.err}`.slice(-4000),
      prints: async (pattern) =>
        Promise.race([
          new Promise<string>((resolve) => {
            if (pattern.test(task.out)) resolve(task.out);
            else task.waiting.push({ pattern, resolve });
          }),
          result.then(({ out, err }) => {
            if (pattern.test(out)) return out;
            throw new Error(`${className} ended before it printed ${pattern}:\n${out}\n${err}`);
          }),
        ]),
      stop: async () => {
        this.#child.stdin?.write(`stop\t${id}\n`);
        return result;
      },
    };
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.stdin?.end();
    await ended;
  }
}
