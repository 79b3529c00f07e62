/** What `/metrics` shows of the AMQP door: counted by hot paths in plain fields, summed when somebody looks. */
import type { Metrics } from '../../broker/metrics.ts';
import type { MessageCounters } from './counters.ts';
import type { AmqpDoor } from './door.ts';

const EVENTS = {
  publish: 'publish',
  confirm: 'confirm',
  returnUnroutable: 'return_unroutable',
  dropUnroutable: 'drop_unroutable',
  deliver: 'deliver',
  deliverNoAck: 'deliver_no_ack',
  get: 'get',
  getNoAck: 'get_no_ack',
  getEmpty: 'get_empty',
  redeliver: 'redeliver',
  ack: 'ack',
} as const satisfies Partial<Record<keyof MessageCounters, string>>;

export function observeAmqp(metrics: Metrics, door: AmqpDoor): void {
  metrics.observed('gauge', 'millrace_amqp_connections', 'AMQP connections in a vhost.', () => {
    let count = 0;
    for (const { isShown } of door.connections) if (isShown) count++;
    return count;
  });
  metrics.observed('gauge', 'millrace_amqp_channels', 'Open AMQP channels.', () => {
    let count = 0;
    for (const { isShown, channelCount } of door.connections) if (isShown) count += channelCount;
    return count;
  });
  metrics.observed('gauge', 'millrace_amqp_vhosts', 'Virtual hosts.', () => door.vhosts.size);
  metrics.observed(
    'counter',
    'millrace_amqp_messages_total',
    "What happened to messages of AMQP clients, in the words of RabbitMQ's message_stats.",
    function* () {
      for (const vhost of door.vhosts.keys()) {
        const counters = door.counters(vhost);
        for (const [field, event] of Object.entries(EVENTS)) {
          yield [{ vhost, event }, counters[field as keyof typeof EVENTS]] as const;
        }
      }
    },
  );
  metrics.observed('counter', 'millrace_amqp_bytes_total', 'Bytes received from AMQP clients and sent to them.', () => {
    const { received, sent } = door.octets();
    return [
      [{ direction: 'in' }, received],
      [{ direction: 'out' }, sent],
    ];
  });
  metrics.observed('gauge', 'millrace_amqp_alarm', '1 while nobody may publish, by what there is too little of.', () =>
    (['disk', 'memory'] as const).map((resource) => [{ resource }, door.alarms.includes(resource) ? 1 : 0]),
  );
}
