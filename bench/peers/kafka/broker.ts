/** Apache Kafka as a target: one combined KRaft node on loopback with the heap and collector of its own start script. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { end, freePort, launch, type Target } from '../../target.ts';
import type { KafkaJars } from './install.ts';

const HEAP = ['-Xms1G', '-Xmx1G'];
const COLLECTOR = [
  '-server',
  '-XX:+UseG1GC',
  '-XX:MaxGCPauseMillis=20',
  '-XX:InitiatingHeapOccupancyPercent=35',
  '-XX:+ExplicitGCInvokesConcurrent',
];
/** Any id of 16 bytes in Kafka's base64 form: it only has to be the same in the formatted folder. */
const CLUSTER_ID = 'bWlsbHJhY2UtYmVuY2gtMQ';

/** Formats `dataDir` if it is new and starts the broker with `settings` over its defaults. */
export async function startKafka(
  jars: KafkaJars,
  dataDir: string,
  settings: Readonly<Record<string, string | number>> = {},
): Promise<Target> {
  const port = await freePort();
  const controllerPort = await freePort();
  fs.mkdirSync(dataDir, { recursive: true });
  const configFile = path.join(dataDir, 'server.properties');
  const config = {
    'process.roles': 'broker,controller',
    'node.id': 1,
    'controller.quorum.voters': `1@127.0.0.1:${controllerPort}`,
    listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${port}`,
    'controller.listener.names': 'CONTROLLER',
    'inter.broker.listener.name': 'PLAINTEXT',
    'log.dirs': path.join(dataDir, 'log'),
    'offsets.topic.replication.factor': 1,
    'transaction.state.log.replication.factor': 1,
    'transaction.state.log.min.isr': 1,
    'share.coordinator.state.topic.replication.factor': 1,
    'share.coordinator.state.topic.min.isr': 1,
    'group.initial.rebalance.delay.ms': 0,
    // Topics go between rounds; waiting a minute for their files would fill the disk.
    'log.segment.delete.delay.ms': 1000,
    ...settings,
  };
  fs.writeFileSync(
    configFile,
    Object.entries(config)
      .map(([key, value]) => `${key}=${value}\n`)
      .join(''),
  );
  const classPath = ['-cp', `${jars.broker}/*`, `-Dlog4j2.configurationFile=${jars.log4jConfig}`];
  if (!fs.existsSync(path.join(dataDir, 'log/meta.properties'))) {
    const args = [...classPath, 'kafka.tools.StorageTool', 'format', '-t', CLUSTER_ID, '-c', configFile];
    const { status, stderr, stdout } = spawnSync('java', args, { encoding: 'utf8' });
    if (status !== 0) throw new Error(`Kafka's StorageTool failed:\n${stdout}${stderr}`);
  }
  const { child, pid } = await launch({
    command: 'java',
    args: [...HEAP, ...COLLECTOR, ...classPath, '-Dpeer.log.level=INFO', 'kafka.Kafka', configFile],
    logFile: path.join(dataDir, 'server.log'),
    ready: /.*Kafka Server started.*/,
  });
  return {
    name: 'kafka',
    port,
    pid,
    metrics: async () => new Map(),
    stop: () => end(child, 'SIGTERM'),
    kill: () => end(child, 'SIGKILL'),
  };
}
