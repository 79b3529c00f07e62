/**
 * RabbitMQ as a target: one node with its defaults, without plugins, on loopback, run by `chroot` in the tree that
 * `install.ts` made. Its files lie in that tree.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { sleep } from '../../machine.ts';
import { end, freePort, launch, type AmqpTarget } from '../../target.ts';

const STOP_MS_MAX = 30_000;

/** Starts a node of its own, called `name`, whose folder goes when it stops. */
export async function startRabbitMq(root: string, name: string): Promise<AmqpTarget> {
  const port = await freePort();
  const distributionPort = await freePort();
  const portMapperPort = await freePort();
  const inside = `/srv/${name}`;
  const folder = path.join(root, inside);
  fs.mkdirSync(path.join(folder, 'log'), { recursive: true });
  fs.writeFileSync(
    path.join(folder, 'rabbitmq.conf'),
    `listeners.tcp.1 = 127.0.0.1:${port}\nlog.file.level = warning\nlog.console = true\nlog.console.level = info\n`,
  );
  fs.writeFileSync(path.join(folder, 'plugins'), '[].');
  // Erlang reads /proc; a tree that was made by debootstrap has none.
  if (!fs.existsSync(path.join(root, 'proc/self'))) spawnSync('mount', ['-t', 'proc', 'proc', path.join(root, 'proc')]);
  const env = [
    `HOME=${inside}`,
    'LANG=C.UTF-8',
    'PATH=/usr/sbin:/usr/bin:/sbin:/bin',
    `RABBITMQ_NODENAME=${name}@localhost`,
    `RABBITMQ_DIST_PORT=${distributionPort}`,
    `ERL_EPMD_PORT=${portMapperPort}`,
    'ERL_EPMD_ADDRESS=127.0.0.1',
    `RABBITMQ_CONF_ENV_FILE=${inside}/none`,
    `RABBITMQ_CONFIG_FILE=${inside}/rabbitmq.conf`,
    `RABBITMQ_ENABLED_PLUGINS_FILE=${inside}/plugins`,
    `RABBITMQ_MNESIA_BASE=${inside}/data`,
    `RABBITMQ_LOG_BASE=${inside}/log`,
    `RABBITMQ_PID_FILE=${inside}/pid`,
    'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}',
  ];
  const { child } = await launch({
    command: 'chroot',
    args: [root, 'env', '-i', ...env, '/usr/lib/rabbitmq/bin/rabbitmq-server'],
    logFile: path.join(folder, 'log/stdout'),
    ready: /.*Server startup complete.*/,
  });
  const pid = Number(fs.readFileSync(path.join(folder, 'pid'), 'utf8'));
  const stop = async (signal: NodeJS.Signals): Promise<void> => {
    // The node is a child of the script that was started, which passes the signal on.
    const ended = end(child, signal);
    if (signal === 'SIGKILL' && isRunning(pid)) process.kill(pid, signal);
    for (let waitedMs = 0; isRunning(pid) && waitedMs < STOP_MS_MAX; waitedMs += 100) await sleep(100);
    if (isRunning(pid)) process.kill(pid, 'SIGKILL');
    await ended;
    // Its port mapper outlives it, and refuses to end until it has noticed.
    for (let attempt = 0; attempt < 20; attempt++) {
      const { status } = spawnSync('chroot', [
        root,
        'env',
        '-i',
        ...env,
        'epmd',
        '-port',
        `${portMapperPort}`,
        '-kill',
      ]);
      if (status === 0) break;
      await sleep(100);
    }
    fs.rmSync(folder, { recursive: true, force: true });
  };
  return {
    name: 'rabbitmq',
    port,
    amqpPort: port,
    pid,
    metrics: async () => new Map(),
    stop: () => stop('SIGTERM'),
    kill: () => stop('SIGKILL'),
  };
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
