/** The thread behind `WorkerJobs`: runs one task after the other on the machine's files. */
import { runTask, type TaskAnswer, type TaskName } from './jobs.ts';
import { loadNative } from './native.ts';
import { NodeDisk } from './node-disk.ts';

const disk = new NodeDisk();
const ready = loadNative();

export async function work({ name, input }: { name: TaskName; input: unknown }): Promise<TaskAnswer> {
  await ready;
  return runTask(disk, name, input);
}
