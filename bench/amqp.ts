/** `npm run bench -- amqp`: Millrace and RabbitMQ side by side, driven by PerfTest and amqplib. */
import { amqpSection } from './load/amqp.ts';
import { installPerfTest, installRabbitMq } from './peers/rabbitmq/install.ts';
import { type RunOptions, runSections } from './run.ts';

export interface AmqpBenchOptions extends RunOptions {
  /** Parts of the names of cases; empty: all. */
  cases: readonly string[];
  withPeer: boolean;
}

export async function benchAmqp({ cases, withPeer, ...options }: AmqpBenchOptions): Promise<void> {
  const jars = installPerfTest();
  if (jars === undefined) throw new Error('there is no PerfTest');
  const rabbitMqRoot = withPeer ? installRabbitMq() : undefined;
  await runSections({ ...options, sections: ['f'], rabbitMqRoot }, (context) => amqpSection(context, jars, cases));
}
