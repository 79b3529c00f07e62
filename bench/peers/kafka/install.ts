/**
 * Where Apache Kafka's jars are, and how they get there: Maven resolves them once into a cache folder outside the
 * checkout. Needs `java` (17 or newer), and `mvn` the first time.
 *
 *   MILLRACE_KAFKA_HOME    the cache folder; default ~/.cache/millrace-peers/kafka
 */
import { spawnSync } from 'node:child_process';
import os from 'node:os';
import path from 'node:path';
import { checkoutRoot } from '../../machine.ts';
import { resolveJars } from '../maven.ts';

/** The broker that is measured, and the newest tools that Maven Central has. */
export const BROKER_VERSION = '4.4.0';
export const TOOLS_VERSION = '4.3.1';

export interface KafkaJars {
  broker: string;
  tools: string;
  log4jConfig: string;
}

export function kafkaHome(env: NodeJS.ProcessEnv = process.env): string {
  if (env.MILLRACE_KAFKA_HOME) return env.MILLRACE_KAFKA_HOME;
  return path.join(env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache'), 'millrace-peers', 'kafka');
}

/** Installs what is missing. Undefined, after saying why, if it cannot. */
export function installKafka(): KafkaJars | undefined {
  const folder = path.join(checkoutRoot(), 'bench/peers/kafka');
  const jars = {
    broker: path.join(kafkaHome(), `broker-${BROKER_VERSION}`),
    tools: path.join(kafkaHome(), `tools-${TOOLS_VERSION}`),
    log4jConfig: path.join(folder, 'log4j2.properties'),
  };
  if (spawnSync('java', ['-version'], { stdio: 'ignore' }).status !== 0) {
    console.error('Apache Kafka needs java 17 or newer, which is not on the PATH.');
    return undefined;
  }
  const isInstalled =
    resolveKafka(folder, { profile: 'broker', version: BROKER_VERSION, target: jars.broker }) &&
    resolveKafka(folder, { profile: 'tools', version: TOOLS_VERSION, target: jars.tools });
  return isInstalled ? jars : undefined;
}

function resolveKafka(
  folder: string,
  { profile, version, target }: { profile: string; version: string; target: string },
): boolean {
  return resolveJars({
    what: `Apache Kafka ${version} (${profile})`,
    pom: path.join(folder, 'pom.xml'),
    target,
    args: ['-P', profile, `-Dkafka.version=${version}`],
  });
}
