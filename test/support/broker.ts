/** A real broker on free ports of loopback with its data in a temporary folder, for tests with foreign clients. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startBroker, type RunningBroker } from '../../broker/main.ts';

export interface TestBroker {
  readonly running: RunningBroker;
  readonly dataDir: string;
  /** HOST:PORT of the Kafka door. */
  readonly bootstrap: string;
  /** http://HOST:PORT of the HTTP door. */
  readonly http: string;
  /** amqp://HOST:PORT of the AMQP door. */
  readonly amqp: string;
  /** http://HOST:PORT of the SQS door. */
  readonly sqs: string;
  /** http://HOST:PORT of RabbitMQ's management API. */
  readonly management: string;
  /** What the broker told its operator. */
  readonly lines: string[];
  /** Stops and starts again on the same folder and ports. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

export async function startTestBroker(options: Record<string, string | number | boolean> = {}): Promise<TestBroker> {
  const dataDir = await mkdtemp(join(tmpdir(), 'millrace-test-'));
  const lines: string[] = [];
  const start = (
    kafkaPort: number,
    httpPort: number,
    amqpPort: number,
    managementPort: number,
    sqsPort: number,
  ): Promise<RunningBroker> =>
    startBroker({
      dataDir,
      doors: {
        kafka: { host: '127.0.0.1', port: kafkaPort },
        amqp: { host: '127.0.0.1', port: amqpPort },
        management: { host: '127.0.0.1', port: managementPort },
        sqs: { host: '127.0.0.1', port: sqsPort },
        http: { host: '127.0.0.1', port: httpPort },
      },
      options: { 'log.disk.reserve.bytes': 0, ...options },
      log: (line) => lines.push(line),
    });
  let running = await start(0, 0, 0, 0, 0);
  const portOf = (name: string): number => running.doors.find((door) => door.name === name)?.port ?? 0;
  const kafkaPort = portOf('kafka');
  const httpPort = portOf('http');
  const amqpPort = portOf('amqp');
  const managementPort = portOf('management');
  const sqsPort = portOf('sqs');
  return {
    get running() {
      return running;
    },
    dataDir,
    bootstrap: `127.0.0.1:${kafkaPort}`,
    http: `http://127.0.0.1:${httpPort}`,
    amqp: `amqp://guest:guest@127.0.0.1:${amqpPort}`,
    management: `http://127.0.0.1:${managementPort}`,
    sqs: `http://127.0.0.1:${sqsPort}`,
    lines,
    async restart() {
      await running.stop();
      running = await start(kafkaPort, httpPort, amqpPort, managementPort, sqsPort);
    },
    async stop() {
      await running.stop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}
