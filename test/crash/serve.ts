/** The broker as a process of its own for the kill tests: configuration as JSON in the first argument, `ready PORT` of its first door
 * on stdout. */
import { type BrokerConfig, startBroker } from '../../broker/main.ts';

const config: BrokerConfig = JSON.parse(process.argv[2]);
const running = await startBroker({ ...config, log: (line) => process.stderr.write(`${line}\n`) });
process.stdout.write(`ready ${running.doors[0].port}\n`);
void running.fatal.then((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(4);
});
process.once('SIGTERM', () => void running.stop().then(() => process.exit(0)));
