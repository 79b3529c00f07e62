/**
 * The configuration file of `millrace serve --config FILE`: YAML with the same names as the flags, and `options:` for
 * everything in broker/config.ts. Flags win over the file. `exampleConfig` writes the commented example.
 */
import { readFile } from 'node:fs/promises';
import { type Option, options } from '../../broker/config.ts';
import { UsageError } from './command.ts';

export interface FileConfig {
  readonly dataDir?: string;
  /** HOST:PORT or off, by door. */
  readonly doors: Readonly<Record<string, string>>;
  readonly insecure?: boolean;
  readonly options: Readonly<Record<string, string | number | boolean>>;
}

/** Default addresses of the doors: the ports their clients look at, on loopback. */
export const doorDefaults: Readonly<Record<string, string>> = {
  kafka: '127.0.0.1:9092',
  amqp: '127.0.0.1:5672',
  management: '127.0.0.1:15672',
  sqs: '127.0.0.1:9324',
  http: '127.0.0.1:8080',
};

export const DATA_DIR_DEFAULT = './millrace-data';

/** Reads and checks the file. `UsageError` names what is wrong and where; option values are checked by the broker. */
export async function readConfigFile(file: string): Promise<FileConfig> {
  return parseConfig(await readNamed('--config', file), file);
}

/** The file that a flag names. `UsageError`. */
export async function readNamed(flag: string, file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw new UsageError(`${flag} ${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
}

export async function parseConfig(text: string, file: string): Promise<FileConfig> {
  const { parse } = await import('yaml');
  let content: unknown;
  try {
    content = parse(text);
  } catch (error) {
    throw new UsageError(`${file}: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`);
  }
  const doors: Record<string, string> = {};
  let dataDir: string | undefined;
  let insecure: boolean | undefined;
  let values: Record<string, string | number | boolean> = {};
  for (const [key, value] of Object.entries(mapping(content ?? {}, file, 'the file'))) {
    if (key === 'options') values = optionValues(value ?? {}, file);
    else if (key === 'data-dir' && typeof value === 'string') dataDir = value;
    else if (key === 'insecure' && typeof value === 'boolean') insecure = value;
    // YAML 1.1 readers take `off` for false; ours does not, but people may write false.
    else if (key in doorDefaults && value === false) doors[key] = 'off';
    else if (key in doorDefaults && typeof value === 'string') doors[key] = value;
    else {
      const known = ['data-dir', ...Object.keys(doorDefaults), 'insecure', 'options'];
      throw new UsageError(`${file}: '${key}: ${String(value)}' is not understood; there are ${known.join(', ')}`);
    }
  }
  return {
    ...(dataDir === undefined ? {} : { dataDir }),
    ...(insecure === undefined ? {} : { insecure }),
    doors,
    options: values,
  };
}

function optionValues(content: unknown, file: string): Record<string, string | number | boolean> {
  const values: Record<string, string | number | boolean> = {};
  for (const [name, value] of Object.entries(mapping(content, file, 'options'))) {
    if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean') {
      throw new UsageError(`${file}: option ${name} takes one value`);
    }
    values[name] = value;
  }
  return values;
}

function mapping(content: unknown, file: string, what: string): Record<string, unknown> {
  if (typeof content === 'object' && content !== null && !Array.isArray(content))
    return content as Record<string, unknown>;
  throw new UsageError(`${file}: ${what} must be a mapping of names to values`);
}

/** The commented example: everything with its default. */
export function exampleConfig(): string {
  const doors = Object.entries(doorDefaults).map(([door, address]) => `#${door}: ${address}`);
  const lines = Object.entries(options).flatMap(([name, option]) => {
    const comment = wrap(option.reason, 110).map((line) => `  # ${line}`);
    const values = allowed(option);
    return [...comment, ...(values ? [`  # ${values}`] : []), `  #${name}: ${yamlText(option.default)}`, ''];
  });
  return `# Generated from broker/config.ts: the configuration of 'millrace serve --config FILE'. Everything is shown with its
# default; take the '#' away in front of what you change. Flags on the command line win over this file.

# Where the log is kept.
#data-dir: ${DATA_DIR_DEFAULT}

# Addresses to listen on, HOST:PORT or off. Port 0 lets the system choose.
${doors.join('\n')}

# Needed to listen on anything but loopback while there is no authentication.
#insecure: false

options:
${lines.join('\n').trimEnd()}
`;
}

function allowed(option: Option): string | undefined {
  if (option.type === 'number') return `${option.min} to ${option.max}`;
  if (option.type === 'string' && option.values) return option.values.join(', ');
  return undefined;
}

function yamlText(value: string | number | boolean): string {
  // A text of digits would be read as a number, and '' as nothing.
  return typeof value === 'string' && !Number.isNaN(Number(value)) ? `'${value}'` : String(value);
}

function wrap(text: string, width: number): string[] {
  const lines = [''];
  for (const word of text.split(' ')) {
    const line = lines[lines.length - 1];
    if (line !== '' && line.length + word.length >= width) lines.push(word);
    else lines[lines.length - 1] = line === '' ? word : `${line} ${word}`;
  }
  return lines;
}
