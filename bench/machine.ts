/**
 * The machine under the benchmarks: its clocks, what the kernel says of a process, and a description for the results.
 * Everything here is Linux (`/proc`); bench/ is the only part of the project that reads it.
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';

/** Ticks of utime and stime in /proc/PID/stat; 100 on every Linux that Node runs on (`getconf CLK_TCK`). */
const TICKS_PER_SECOND = 100;

/** Microseconds, with fraction, of the monotonic clock; the same in every thread of the process. */
export function nowUs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1e6 + nanoseconds / 1e3;
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

/** CPU seconds of all threads of a process since it started: utime + stime, in steps of 10 ms. */
export function cpuSeconds(pid: number): number {
  return parseCpuSeconds(fs.readFileSync(`/proc/${pid}/stat`, 'utf8'));
}

/** The command in the second field may hold spaces and brackets: count from the last bracket. */
export function parseCpuSeconds(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

export interface Memory {
  /** Resident now and at its highest since the last `resetPeak`, in MiB. */
  rssMib: number;
  peakMib: number;
}

export function memory(pid: number): Memory {
  return parseMemory(fs.readFileSync(`/proc/${pid}/status`, 'utf8'));
}

export function parseMemory(status: string): Memory {
  const kib = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]);
  return { rssMib: Math.round(kib('VmRSS') / 102.4) / 10, peakMib: Math.round(kib('VmHWM') / 102.4) / 10 };
}

/** Starts VmHWM anew. Where the kernel does not allow it the peak is that of the whole life of the process. */
export function resetPeak(pid: number): void {
  try {
    fs.writeFileSync(`/proc/${pid}/clear_refs`, '5');
  } catch {
    // The figure is then an upper bound.
  }
}

export function loadAverage(): number {
  return Math.round(os.loadavg()[0] * 10) / 10;
}

export interface Machine {
  cpu: string;
  cores: number;
  memoryGib: number;
  kernel: string;
  node: string;
  java: string;
  fileSystem: string;
  commit: string;
}

/** Describes this machine, the file system under `dataDir`, and the commit of the checkout at `root`. */
export function describeMachine(root: string, dataDir: string): Machine {
  return {
    cpu: os.cpus()[0]?.model ?? 'unknown',
    cores: os.cpus().length,
    memoryGib: Math.round(os.totalmem() / 2 ** 30),
    kernel: `${os.type()} ${os.release()}`,
    node: process.versions.node,
    java: /"([^"]+)"/.exec(output('java', ['-version'], 'stderr'))?.[1] ?? 'none',
    fileSystem: fileSystemOf(dataDir),
    commit: output('git', ['-C', root, 'rev-parse', '--short', 'HEAD'], 'stdout').trim() || 'unknown',
  };
}

/** Type and options of the file system that holds `path`: the longest mount point above it. */
function fileSystemOf(path: string): string {
  const real = fs.realpathSync(path);
  let best = { point: '', text: 'unknown' };
  for (const line of fs.readFileSync('/proc/mounts', 'utf8').split('\n')) {
    const [device, point = '', type, mountOptions] = line.split(' ');
    const isAbove = point === '/' || real === point || real.startsWith(`${point}/`);
    if (point && isAbove && point.length >= best.point.length)
      best = { point, text: `${type} (${device}, ${mountOptions})` };
  }
  return best.text;
}

function output(command: string, args: string[], stream: 'stdout' | 'stderr'): string {
  try {
    if (stream === 'stdout')
      return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    // `java -version` speaks on stderr.
    return execFileSync('sh', ['-c', `${command} ${args.join(' ')} 2>&1`], { encoding: 'utf8' });
  } catch {
    return '';
  }
}

/** The checkout: the folder above this file that holds package.json, wherever the build put it. */
export function checkoutRoot(): string {
  let folder = new URL('.', import.meta.url);
  while (!fs.existsSync(new URL('package.json', folder))) {
    const parent = new URL('..', folder);
    if (parent.href === folder.href) throw new Error('package.json is in no folder above bench/');
    folder = parent;
  }
  return folder.pathname;
}
