/**
 * Where RabbitMQ 4 and PerfTest are, and how they get there. PerfTest comes from Maven Central. RabbitMQ is that of Debian 13
 * (4.0), in a tree of its own, so that it runs on any Linux: debootstrap makes it once, which needs root.
 *
 *   MILLRACE_RABBITMQ_HOME    the cache folder; default ~/.cache/millrace-peers (rabbitmq4/ and perf-test-VERSION/ in it)
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { checkoutRoot } from '../../machine.ts';
import { resolveJars } from '../maven.ts';

export const PERF_TEST_VERSION = '2.22.1';
const DEBIAN = 'trixie';
const SERVER = 'usr/lib/rabbitmq/bin/rabbitmq-server';

export function peersHome(env: NodeJS.ProcessEnv = process.env): string {
  if (env.MILLRACE_RABBITMQ_HOME) return env.MILLRACE_RABBITMQ_HOME;
  return path.join(env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache'), 'millrace-peers');
}

/** The folder with PerfTest's jars; undefined, after saying why, if they cannot be had. */
export function installPerfTest(): string | undefined {
  if (spawnSync('java', ['-version'], { stdio: 'ignore' }).status !== 0) {
    console.error('PerfTest needs java 17 or newer, which is not on the PATH.');
    return undefined;
  }
  const jars = path.join(peersHome(), `perf-test-${PERF_TEST_VERSION}`);
  const isInstalled = resolveJars({
    what: `PerfTest ${PERF_TEST_VERSION}`,
    pom: path.join(checkoutRoot(), 'bench/peers/rabbitmq/pom.xml'),
    target: jars,
    args: [`-Dperf-test.version=${PERF_TEST_VERSION}`],
  });
  return isInstalled ? jars : undefined;
}

/** The root of a system that has RabbitMQ 4; undefined, after saying why, if it cannot be had. */
export function installRabbitMq(): string | undefined {
  const root = path.join(peersHome(), 'rabbitmq4');
  if (fs.existsSync(path.join(root, SERVER))) return root;
  if (process.getuid?.() !== 0) {
    console.error(
      `RabbitMQ is installed into ${root} with debootstrap and started with chroot: run this once as root.`,
    );
    return undefined;
  }
  console.error(`Installing RabbitMQ 4 (Debian ${DEBIAN}) into ${root} …`);
  const run = (command: string, args: readonly string[]): boolean => {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const { status, error } = spawnSync(command, args, { stdio: ['ignore', 2, 2], env });
    if (status === 0) return true;
    console.error(error ? `${command} is not on the PATH.` : `${command} failed (see above).`);
    return false;
  };
  const hasSystem = fs.existsSync(path.join(root, 'usr/bin/apt-get'));
  if (!hasSystem && !run('debootstrap', ['--variant=minbase', '--include=ca-certificates', DEBIAN, root]))
    return undefined;
  // Packages must not start their services: this is a tree, no machine.
  const policy = path.join(root, 'usr/sbin/policy-rc.d');
  fs.writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  fs.copyFileSync('/etc/resolv.conf', path.join(root, 'etc/resolv.conf'));
  const isInstalled =
    run('chroot', [root, 'apt-get', 'update', '-q']) &&
    run('chroot', [root, 'apt-get', 'install', '-y', '-q', '--no-install-recommends', 'rabbitmq-server']);
  return isInstalled ? root : undefined;
}
