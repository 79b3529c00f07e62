/**
 * The history of a dead letter (`broker/queue-attributes.ts`) as RabbitMQ shows it to consumers: `x-death` and the headers
 * that begin with `x-first-death-` and `x-last-death-`.
 */
import { type FieldValue, type Table, textField } from '../../protocol/amqp/table.ts';
import type { Death, DeathHistory } from '../../broker/queue-attributes.ts';

/** The table with the history in it, without what a client may have put in its place; sorted, as RabbitMQ's is. */
export function withDeaths(table: Table, { first, deaths, lastExchange }: DeathHistory): Table {
  const [newest] = deaths;
  const history: [string, FieldValue][] = [
    ['x-death', { type: 'A', value: deaths.map((death) => ({ type: 'F', value: tableOf(death) })) }],
    ['x-first-death-exchange', textField(first.published?.exchange ?? '')],
    ['x-first-death-queue', textField(first.published?.alias ?? first.queue)],
    ['x-first-death-reason', textField(first.reason)],
    ['x-last-death-exchange', textField(lastExchange ?? newest.published?.exchange ?? '')],
    ['x-last-death-queue', textField(queueOf(newest))],
    ['x-last-death-reason', textField(newest.reason)],
  ];
  const names = new Set(history.map(([name]) => name));
  const others = table.filter(([name]) => !names.has(name));
  return [...others, ...history].sort(([one], [other]) => (one < other ? -1 : one > other ? 1 : 0));
}

const queueOf = ({ queue, published }: Death): string => published?.alias ?? queue;

function tableOf(death: Death): Table {
  const { count, reason, firstMs, published, ttlMs } = death;
  const queue = queueOf(death);
  const routingKeys = published?.routingKeys ?? [queue];
  const table: [string, FieldValue][] = [
    ['count', { type: 'l', value: count }],
    ['reason', textField(reason)],
    ['queue', textField(queue)],
    ['time', { type: 'T', value: Math.floor(firstMs / 1000) }],
    ['exchange', textField(published?.exchange ?? '')],
    ['routing-keys', { type: 'A', value: routingKeys.map(textField) }],
  ];
  if (ttlMs !== undefined) table.unshift(['original-expiration', textField(String(ttlMs))]);
  return table;
}
