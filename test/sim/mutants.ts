/**
 * Deliberately broken builds: each breaks one rule of the durability contract by changing a copy of the compiled output,
 * and the exploration must notice. One that survives says that the exploration is blind there.
 *
 * A change names text of the compiled file; it fails loudly if that text is not there exactly once, so that it cannot rot.
 */
import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

interface Change {
  /** Relative to the compiled output. */
  file: string;
  /** White space may differ. */
  from: string;
  to: string;
}

export interface Mutant {
  name: string;
  /** The rule that it breaks. */
  breaks: string;
  changes: readonly Change[];
  /** It is the simulation of the whole broker (`main.ts`) that must notice. */
  isBroker?: boolean;
  /** It is the simulation of queues (`queue-main.ts`) that must notice. */
  isQueues?: boolean;
  /** With `isQueues`: the run through the AMQP door. */
  isAmqp?: boolean;
  /** What shows it, if not the usual workload. */
  isUniform?: boolean;
  /** Default 1..8. */
  seeds?: string;
  /** Of the log: every n-th operation is looked at; default 3. */
  stride?: number;
}

export const mutants: readonly Mutant[] = [
  {
    name: 'sync-skipped',
    breaks: 'a direct write is synced before its group ends',
    changes: [
      {
        file: 'storage/committer.js',
        from: 'member.writeDirect(group.number, isSynced)',
        to: 'member.writeDirect(group.number, false)',
      },
    ],
  },
  {
    name: 'journal-not-synced',
    breaks: 'a journal record is on the platter when its write has ended',
    changes: [{ file: 'storage/journal.js', from: "isSynced ? 'synced' : 'write'", to: "'write'" }],
  },
  {
    name: 'ack-before-sync',
    breaks: 'nothing is answered before its group is synced',
    changes: [
      {
        file: 'storage/committer.js',
        from: 'this.#queue.shift(); this.#inFlight = group;',
        to: 'this.#queue.shift(); this.#inFlight = group; for (const waiter of group.waiters.splice(0)) waiter();',
      },
    ],
  },
  {
    name: 'watermark-at-append',
    breaks: 'readers see nothing that is not synced',
    changes: [
      {
        file: 'storage/partition-log.js',
        from: 'get highWatermark() { return this.#highWatermark; }',
        to: 'get highWatermark() { this.#highWatermark = this.#endOffset; return this.#endOffset; }',
      },
      { file: 'storage/partition-log.js', from: 'assert(end > this.#highWatermark);', to: '' },
    ],
  },
  {
    name: 'torn-tail-kept',
    breaks: 'a segment is cut at the first bad batch',
    changes: [
      {
        file: 'storage/partition-recovery.js',
        from: 'const sizeBytes = checkStoredBatch(window, at, availableBytes - at);',
        to: `const left = availableBytes - at;
             const sizeBytes = left >= 61 && batchSizeBytes(window, at) <= left ? batchSizeBytes(window, at) : -1;`,
      },
    ],
  },
  {
    name: 'entry-not-synced',
    breaks: 'the directory entry of a new segment is synced before the first answer from it',
    changes: [
      {
        file: 'storage/partition-log.js',
        from: 'files.disk.syncDirectory(this.#path).then(',
        to: 'Promise.resolve().then(',
      },
    ],
  },
  {
    name: 'reused-salt',
    // With either of the two, records of an earlier use are told apart; both are there, so both are broken.
    breaks: 'each use of a journal file has a salt of its own, and sequences never come again',
    isUniform: true,
    seeds: '5..12',
    changes: [
      { file: 'storage/journal.js', from: 'this.#options.random.fill(this.#salt);', to: '' },
      { file: 'storage/journal.js', from: 'assert(sequence >= this.#releasedSequence);', to: '' },
      {
        file: 'storage/recovery.js',
        from: 'nextSequence: Math.max(read.endSequence - 1, chain.largestFirstSequence) + SEQUENCE_GAP,',
        to: 'nextSequence: 1,',
      },
    ],
  },
  {
    name: 'overtaking',
    breaks: 'a group ends only after the direct writes in it, so nothing overtakes them through the journal',
    changes: [
      {
        file: 'storage/committer.js',
        from: 'pending++; writing.then(done, onFatal);',
        to: 'writing.then(() => {}, onFatal);',
      },
    ],
  },
  {
    name: 'segment-before-journal',
    breaks: 'journaled bytes reach their segment only after their record is synced',
    changes: [
      {
        file: 'storage/run-queue.js',
        from: 'unwritten(groupNumber) { let end = this.#undurable;',
        to: 'unwritten(groupNumber) { let end = groupNumber === undefined ? this.#runs.length : this.#undurable;',
      },
      {
        file: 'storage/run-queue.js',
        from: "assert(this.#unwritten < this.#undurable, 'only what is durable counts as written');",
        to: '',
      },
    ],
  },
  {
    name: 'cut-not-synced',
    breaks: 'what recovery cut or walked is synced before the partition takes anything',
    changes: [{ file: 'storage/partition-recovery.js', from: 'await file.sync();', to: '' }],
  },
  {
    name: 'answer-from-unsynced-state',
    breaks: 'a retry is answered only when the original is durable',
    changes: [
      {
        file: 'storage/partition-log.js',
        from: 'position: this.#runs.groupOf(lastOffset),',
        to: 'position: 0,',
      },
    ],
  },
  {
    name: 'checkpoint-before-sync',
    breaks: 'a checkpoint says only what is synced',
    changes: [
      {
        file: 'storage/partition-log.js',
        from: 'this.#isFolderInPiece = true; await this.#syncSegments();',
        to: 'this.#isFolderInPiece = true;',
      },
    ],
  },
  {
    name: 'new-folder-not-synced',
    breaks: 'a folder that is new is synced before the first answer to a direct write in it',
    changes: [
      {
        file: 'storage/partition-log.js',
        from: 'await Promise.all([dataDir.syncPartition(folder), dataDir.sync()]);',
        to: '',
      },
    ],
  },
  {
    name: 'journal-reused-early',
    breaks: 'the journal that a start has read stays until a checkpoint covers it',
    seeds: '5..12',
    changes: [
      {
        file: 'storage/journal.js',
        from: 'const lastSequence = before.lastSequences.get(path) ?? -1;',
        to: 'const lastSequence = -1;',
      },
    ],
  },
  {
    name: 'recovered-as-synced',
    breaks: 'what recovery has left unsynced is synced by the next checkpoint',
    changes: [
      {
        file: 'storage/partition-log.js',
        from: '#noteUnsynced({ isFolderNew, syncedBytes, isWrittenHere }) {',
        to: '#noteUnsynced({ isFolderNew, syncedBytes, isWrittenHere }) { if (syncedBytes) return;',
      },
    ],
  },
  {
    name: 'pending-forgotten',
    breaks:
      'a checkpoint lets go only of what is in the segments, also of partitions that nobody has used since the start',
    changes: [
      {
        file: 'storage/partition-log.js',
        from: 'async #checkpoint(saveAll) { await this.#recovered();',
        to: 'async #checkpoint(saveAll) {',
      },
    ],
  },
  {
    name: 'chain-not-continued',
    breaks: 'the first file of a process goes on where recovery has stopped',
    changes: [
      {
        file: 'storage/journal.js',
        from: 'this.#continues = options.before.endSequence;',
        to: 'this.#continues = options.firstSequence;',
      },
    ],
  },
  {
    name: 'swap-not-synced',
    breaks: 'a rewritten segment is synced before it takes the place of the old one',
    seeds: '1..20',
    changes: [
      {
        file: 'storage/segment-rewrite.js',
        from: 'times.add(found.largestTimestamp, found.largestTimestampOffset); await file.sync();',
        to: 'times.add(found.largestTimestamp, found.largestTimestampOffset);',
      },
    ],
  },
  {
    name: 'swap-before-checkpoint',
    breaks: 'the files of a segment stay until a checkpoint names what has taken its place',
    seeds: '1..20',
    changes: [
      {
        file: 'storage/segment-swap.js',
        from: 'isInPiece: false, isNamed: false }); this.#host.changed();',
        to: 'isInPiece: false, isNamed: true }); this.#host.changed(); this.finish();',
      },
    ],
  },
  {
    name: 'swap-names-not-synced',
    breaks: 'a start syncs the names of rewritten segments, also those that were given before it',
    seeds: '25',
    stride: 2,
    changes: [{ file: 'storage/segment-swap.js', from: 'await disk.syncDirectory(`${path}/${folder}`);', to: '' }],
  },
  {
    name: 'unlink-before-durable',
    breaks: 'files go only after the new start is durable',
    changes: [
      {
        file: 'storage/log-engine.js',
        from: 'group.effects.push(() => partition.startDurable(offset));',
        to: 'partition.startDurable(offset);',
      },
    ],
  },
];

/** The compiled output that this file is part of. */
const output = fileURLToPath(new URL('../..', import.meta.url));
const TIMEOUT_MS = 180_000;
/** What a run says when something that was promised is not so. */
const LOG_FAILURE = /^BrokenPromise: /;
const QUEUES_FAILURE = /^FAILED Error: seed \d+: /;
const BROKER_FAILURE = /^(FAILED Error: seed \d+, at [0-9.]+ ms|unhandled rejection in seed \d+): /;

export interface Verdict {
  name: string;
  isCaught: boolean;
  /** How it was caught, or what happened instead. */
  text: string;
  seconds: number;
}

/** Builds the mutant beside the real output and explores it in a process of its own. `parent` must be inside the project. */
export async function tryMutant(mutant: Mutant, parent: string): Promise<Verdict> {
  const folder = join(parent, mutant.name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const part of ['protocol', 'storage', 'broker', 'adapters', 'test/sim', 'test/support']) {
    cpSync(join(output, part), join(folder, part), { recursive: true });
  }
  for (const change of mutant.changes) apply(folder, change);
  const startedMs = performance.now();
  const { code, text } = await explore(folder, mutant);
  const seconds = (performance.now() - startedMs) / 1000;
  rmSync(folder, { recursive: true, force: true });
  // Caught by what it breaks, not by a mistake that it makes elsewhere.
  const failure = mutant.isBroker === true ? BROKER_FAILURE : mutant.isQueues === true ? QUEUES_FAILURE : LOG_FAILURE;
  const isCaught = code === 1 && failure.test(text);
  return { name: mutant.name, isCaught, text, seconds };
}

function apply(folder: string, change: Change): void {
  const path = join(folder, change.file);
  writeFileSync(path, changed(readFileSync(path, 'utf8'), change));
}

/** @throws if the code is not, or not only once, what the change expects */
function changed(code: string, { file, from, to }: Change): string {
  const words = from.split(/\s+/).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  const parts = code.split(new RegExp(words.join('\\s*')));
  if (parts.length !== 2) throw new Error(`${file} has ${parts.length - 1} times, expected once: ${from}`);
  return parts.join(to);
}

/** Whether the code still has what the mutant breaks; throws if not. */
export function checkFits({ changes }: Mutant): void {
  for (const change of changes) changed(readFileSync(join(output, change.file), 'utf8'), change);
}

function explore(
  folder: string,
  { isBroker, isQueues, isAmqp, isUniform, seeds, stride = 3 }: Mutant,
): Promise<{ code: number; text: string }> {
  const program = isBroker === true ? 'main' : isQueues === true ? 'queue-main' : 'log-main';
  const script = join(folder, `test/sim/${program}.js`);
  const ofLog = ['--synced', '--stride', String(stride), '--no-faults', ...(isUniform === true ? ['--uniform'] : [])];
  const isOfBroker = isBroker === true || isQueues === true;
  const ofAmqp = isAmqp === true ? ['--amqp'] : [];
  const args = isOfBroker ? ['--seeds', seeds ?? '1..60', ...ofAmqp] : ['--seeds', seeds ?? '1..8', ...ofLog];
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [script, ...args], {
      cwd: dirname(folder),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const timer = setTimeout(() => child.kill('SIGKILL'), TIMEOUT_MS);
    let text = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (text += String(data)));
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      resolve({
        code: code ?? -1,
        text: signal === null ? lastLine(text) : `ended by ${signal} after ${TIMEOUT_MS} ms`,
      });
    });
  });
}

/** The line that says what was found. */
function lastLine(text: string): string {
  const lines = text.split('\n').filter((line) => line !== '');
  const told = lines.find((line) =>
    [LOG_FAILURE, BROKER_FAILURE, QUEUES_FAILURE].some((failure) => failure.test(line)),
  );
  return told ?? lines.find((line) => /\w*Error\b/.test(line)) ?? lines.at(-1) ?? '';
}
