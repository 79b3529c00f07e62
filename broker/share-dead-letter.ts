/**
 * What Apache Kafka 4.4 writes on a dead letter of a share group (KIP-1191), beside our own history: six headers, as
 * text. Added where the group's own config has named the topic, so that who reads dead letters of Kafka reads these, too.
 */
import type { RecordHeader } from '../protocol/record-batch.ts';
import type { LeaveReason } from './queue.ts';
import type { MessagePlace } from './queue-attributes.ts';
import type { Queue } from './queue-handle.ts';

const PREFIX = '__dlq.errors.';
/** In Kafka's words, for what can happen there. */
const MESSAGES: Readonly<Partial<Record<LeaveReason, string>>> = {
  rejected: 'Offset rejected by client.',
  delivery_limit: 'Offset delivery count exceeded the threshold.',
};

/** Whether the queue's dead letters go where `errors.deadletterqueue.topic.name` says. */
export function hasKafkaTarget(queue: Queue): boolean {
  return queue.kind === 'plain' || queue.origins.get('dead.letter.queue') === 'kafka';
}

/** `headers`, with what they say of an earlier death of this kind replaced. */
export function withKafkaDeath(
  headers: readonly RecordHeader[],
  death: {
    readonly group: string;
    readonly place: MessagePlace;
    readonly reason: LeaveReason;
    readonly acquiredCount: number;
  },
): RecordHeader[] {
  const { group, place, reason, acquiredCount } = death;
  const told: [string, string][] = [
    ['topic', place.topic],
    ['partition', String(place.partition)],
    ['offset', String(place.offset)],
    ['group', group],
    ['delivery.count', String(acquiredCount)],
    ['message', MESSAGES[reason] ?? reason],
  ];
  const kept = headers.filter(({ key }) => !key.startsWith(PREFIX));
  return [...kept, ...told.map(([name, text]) => ({ key: PREFIX + name, value: Buffer.from(text) }))];
}
