/** Counters as the API shows them: each with its rate in an object `…_details` beside it. */
import type { MessageCounters } from '../amqp/counters.ts';
import type { Fact } from './listing.ts';
import type { Reading } from './rates.ts';

export function publishReading(counters: MessageCounters): Reading {
  return {
    publish: counters.publish,
    confirm: counters.confirm,
    return_unroutable: counters.returnUnroutable,
    drop_unroutable: counters.dropUnroutable,
  };
}

export function deliverReading(counters: MessageCounters): Reading {
  return {
    get: counters.get,
    get_no_ack: counters.getNoAck,
    deliver: counters.deliver,
    deliver_no_ack: counters.deliverNoAck,
    redeliver: counters.redeliver,
    ack: counters.ack,
    deliver_get: counters.deliverGet,
    get_empty: counters.getEmpty,
  };
}

export const messageReading = (counters: MessageCounters): Reading => ({
  ...publishReading(counters),
  ...deliverReading(counters),
});

/** `ready` and what is in flight, and both together. */
export const lengthReading = (ready: number, unacknowledged: number): Reading => ({
  messages_ready: ready,
  messages_unacknowledged: unacknowledged,
  messages: ready + unacknowledged,
});

export function withRates(values: Reading, rates: Reading): Fact {
  const fact: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(values)) {
    fact[name] = value;
    fact[`${name}_details`] = { rate: rates[name] ?? 0 };
  }
  return fact;
}

/** Groups of counters of which something has been counted; nothing if there is none. */
export function messageStats(groups: readonly Reading[], rates: Reading): Fact {
  const counted = groups.filter((group) => Object.values(group).some((value) => value !== 0));
  return counted.length === 0
    ? {}
    : { message_stats: Object.assign({}, ...counted.map((each) => withRates(each, rates))) };
}
