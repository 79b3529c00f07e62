/**
 * Queue commands (`broker/queue-commands.ts`) over the Kafka port: JSON in tagged field 10000 of AlterShareGroupOffsets,
 * answered in the same field of its response. Announced in ApiVersions as feature `millrace.queues`; a server that does
 * not know the field would do what the rest of the request says, so the rest names no topics.
 */
import type {
  AlterShareGroupOffsetsRequest,
  AlterShareGroupOffsetsResponseInit,
} from '../../protocol/kafka/messages.ts';
import type { Broker } from '../broker.ts';
import type { Call } from './call.ts';

/** Supported feature (KIP-584). Version 1: the commands of the first release. */
export const QUEUES_FEATURE = { name: 'millrace.queues', minVersion: 1, maxVersion: 1 } as const;

/** Answers the command of the request. The next requests of the connection do not wait for it. */
export function queueCommand(
  broker: Broker,
  call: Call<AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponseInit>,
  command: Buffer,
): void {
  broker.queueCommands
    .runText(command, (operation, type, name) => call.allows(operation, type, name))
    .then(
      (queueAnswer) => call.reply({ throttleTimeMs: 0, errorCode: 0, responses: [], queueAnswer }),
      (error: unknown) => call.fail(error),
    );
}
