/**
 * Commands of operators (`broker/queue-commands.ts`, `broker/directory-commands.ts`) over the Kafka port: JSON in tagged
 * field 10000 of AlterShareGroupOffsets, answered in the same field of its response. Announced in ApiVersions as feature
 * `millrace.queues`; a server that does not know the field would do what the rest of the request says, so the rest names
 * no topics.
 */
import { MillraceError } from '../../protocol/errors.ts';
import type {
  AlterShareGroupOffsetsRequest,
  AlterShareGroupOffsetsResponseInit,
} from '../../protocol/kafka/messages.ts';
import { ANONYMOUS } from '../access.ts';
import type { Broker } from '../broker.ts';
import { type Allows, type Answer, runText } from '../command-arguments.ts';
import { DirectoryCommands } from '../directory-commands.ts';
import { isLoopback } from '../server.ts';
import type { Call } from './call.ts';

/** Supported feature (KIP-584). Version 1: the commands of the first release. */
export const QUEUES_FEATURE = { name: 'millrace.queues', minVersion: 1, maxVersion: 1 } as const;

/** Answers the command of the request. The next requests of the connection do not wait for it. */
export function queueCommand(
  broker: Broker,
  call: Call<AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponseInit>,
  command: Buffer,
): void {
  const allows: Allows = (operation, type, name) => call.allows(operation, type, name);
  const directory = new DirectoryCommands(broker.directory);
  const run = async (request: unknown): Promise<Answer> => {
    if (!directory.has(request)) return broker.queueCommands.run(request, allows);
    // Who says who it is may come from anywhere; anybody else only from where the files could be read, too.
    const { principal, remoteHost } = call.connection;
    if (principal === ANONYMOUS && !isLoopback(remoteHost)) {
      throw new MillraceError(
        'CLUSTER_AUTHORIZATION_FAILED',
        'users, vhosts and policies are changed through the Kafka port from the same machine only',
      );
    }
    return directory.run(request, allows);
  };
  runText(command, run).then(
    (queueAnswer) => call.reply({ throttleTimeMs: 0, errorCode: 0, responses: [], queueAnswer }),
    (error: unknown) => call.fail(error),
  );
}
