/** What the commands about users, vhosts and policies have in common: how they ask, and how they print lists. */
import { type BrokerCommand, runBrokerCommand } from '../kafka/queues.ts';
import { withCluster } from './cluster-flags.ts';
import { type Args, type Flag, wholeNumber } from './command.ts';
import type { Io } from './io.ts';
import { type Cell, jsonLine, table } from './output.ts';
import { isJson } from './queue-args.ts';

export const vhostFlag = {
  vhost: { value: 'VHOST', short: 'v', help: "which vhost (default '/', where the queues of all doors are)" },
} as const satisfies Record<string, Flag>;

/** Runs one command of the broker that answers nothing, and says what was done. */
export function done(args: Args, io: Io, command: BrokerCommand, note: string): Promise<void> {
  return withCluster(args, io, async (cluster) => {
    await runBrokerCommand(cluster, command);
    io.note(note);
  });
}

/** Asks for a list, in one or more fields of the answer, and prints it. */
export function listed<Item extends object>(
  args: Args,
  io: Io,
  shown: {
    readonly command: BrokerCommand;
    readonly fields: readonly string[];
    readonly head: readonly string[];
    readonly row: (item: Item) => readonly Cell[];
    /** What is said of an empty list. */
    readonly none: string;
  },
): Promise<void> {
  return withCluster(args, io, async (cluster) => {
    const isForPrograms = isJson(args);
    const answer = await runBrokerCommand<Readonly<Record<string, readonly Item[]>>>(cluster, shown.command);
    const items = shown.fields.flatMap((field) => answer[field]);
    if (isForPrograms) for (const item of items) await io.write(jsonLine(item));
    else if (items.length === 0) io.note(shown.none);
    else await io.write(table(shown.head, items.map(shown.row)));
  });
}

export const limitsText = (limits: Readonly<Record<string, number>>): string =>
  Object.entries(limits)
    .map(([name, value]) => `${name}=${value}`)
    .join(', ');

export function setLimit(args: Args, io: Io, command: 'user.limit' | 'vhost.limit'): Promise<void> {
  const [name, limitName, text] = args.positionals;
  const value = text === undefined ? undefined : wholeNumber(limitName, text, 0);
  const note = value === undefined ? `${name} has no limit ${limitName}` : `${limitName} of ${name} is ${value}`;
  return done(args, io, { command, name, limit: limitName, value }, note);
}
