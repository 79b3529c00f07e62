/** Reads files out of a zip archive (a jar) in memory: just what the standard tools write, without zip64 or encryption. */
import { inflateRawSync } from 'node:zlib';

const END_BYTES = 22;
const END_SIGNATURE = 0x06054b50;
const ENTRY_SIGNATURE = 0x02014b50;
const STORED = 0;

/** Name → content of the files whose name passes `isWanted`. */
export function unzip(archive: Buffer, isWanted: (name: string) => boolean): Map<string, Buffer> {
  let end = archive.length - END_BYTES;
  while (end >= 0 && archive.readUInt32LE(end) !== END_SIGNATURE) end--;
  if (end < 0) throw new Error('no end of central directory: not a zip archive');
  const files = new Map<string, Buffer>();
  let at = archive.readUInt32LE(end + 16);
  for (let left = archive.readUInt16LE(end + 10); left > 0; left--) {
    if (archive.readUInt32LE(at) !== ENTRY_SIGNATURE) throw new Error(`no directory entry at byte ${at}`);
    const method = archive.readUInt16LE(at + 10);
    const sizeBytes = archive.readUInt32LE(at + 20);
    const nameBytes = archive.readUInt16LE(at + 28);
    const restBytes = archive.readUInt16LE(at + 30) + archive.readUInt16LE(at + 32);
    const local = archive.readUInt32LE(at + 42);
    const name = archive.toString('utf8', at + 46, at + 46 + nameBytes);
    at += 46 + nameBytes + restBytes;
    if (!isWanted(name)) continue;
    const start = local + 30 + archive.readUInt16LE(local + 26) + archive.readUInt16LE(local + 28);
    const data = archive.subarray(start, start + sizeBytes);
    files.set(name, method === STORED ? data : inflateRawSync(data));
  }
  return files;
}
