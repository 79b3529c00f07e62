/**
 * Everything but messages as one JSON document, in RabbitMQ's format: given out whole or for one vhost, and taken in.
 * What is there already stays as it is where it cannot be changed (exchanges, queues, bindings) and is replaced where it can.
 */
import { fieldOf } from '../../protocol/amqp/table.ts';
import { AmqpError } from '../amqp/reply.ts';
import { queueType } from '../amqp/queue-arguments.ts';
import type { Vhost } from '../amqp/vhost.ts';
import { objectField, textField, truthField } from './fields.ts';
import type { Fact } from './listing.ts';
import { type ManagementParts, vhostOf, vhostsOf } from './parts.ts';
import { globalFacts, parameterFacts, policyFact, putParameter, putPolicy } from './policies.ts';
import { shownArguments } from './queue-facts.ts';
import { parsed } from './rest.ts';
import { ApiError, badRequest, type Call, notFound, Raw, type Resource, type Resources } from './resource.ts';
import { jsonToTable, tableToJson } from './tables.ts';
import { putUser, userFacts } from './users.ts';
import { describedVhost, putVhost } from './vhosts.ts';
import type { Json } from '../../broker/directory-state.ts';

/** Between looks at whether the changes so far are durable: bounds what waits. */
const CHUNK = 50;

export function definitionResources(parts: ManagementParts): Resources {
  const whole: Resource = {
    allowed: 'admin',
    get: ({ request }) => download(allDefinitions(parts), request.query),
    post: (call) => upload(parts, call),
  };
  return {
    '/definitions': whole,
    '/all-configuration': whole,
    '/definitions/:vhost': {
      allowed: 'admin',
      get({ params, request }) {
        const vhost = vhostOf(parts, params['vhost']);
        if (vhost === undefined) throw badRequest('vhost_not_found');
        return download(vhostDefinitions(parts, vhost), request.query);
      },
      post: (call) => upload(parts, call),
    },
  };
}

function download(definitions: Fact, query: URLSearchParams): unknown {
  const file = query.get('download')?.replace(/[\r\n]/g, '');
  if (file === undefined) return definitions;
  const headers = { 'content-disposition': `attachment; filename=${file}` };
  return new Raw(200, 'application/json', JSON.stringify(definitions), headers);
}

// --- out ---

function allDefinitions(parts: ManagementParts): Fact {
  const { directory, clusterName, version, productVersion } = parts;
  const vhosts = [...vhostsOf(parts)];
  const { users } = directory;
  return {
    rabbit_version: version,
    rabbitmq_version: version,
    product_name: parts.productName,
    product_version: productVersion,
    rabbitmq_definition_format: 'cluster',
    original_cluster_name: clusterName(),
    explanation: `Definitions of cluster '${clusterName()}'`,
    users: userFacts(directory),
    vhosts: directory.vhosts.list().map(describedVhost),
    permissions: users.permissions(),
    topic_permissions: users.topicPermissions(),
    parameters: parameterFacts(directory),
    global_parameters: globalFacts(directory, parts.clusterId),
    policies: directory.policies.list('user').map(policyFact),
    queues: vhosts.flatMap((vhost) => queueFacts(vhost).map((fact) => ({ ...fact, vhost: vhost.name }))),
    exchanges: vhosts.flatMap((vhost) => exchangeFacts(vhost).map((fact) => ({ ...fact, vhost: vhost.name }))),
    bindings: vhosts.flatMap((vhost) => bindingFacts(vhost).map((fact) => ({ ...fact, vhost: vhost.name }))),
  };
}

function vhostDefinitions(parts: ManagementParts, vhost: Vhost): Fact {
  const { directory, version, productVersion } = parts;
  const described = directory.vhosts.required(vhost.name);
  const { description, metadata, default_queue_type: type } = describedVhost(described);
  const ofVhost = (facts: readonly Fact[]): Fact[] =>
    facts
      .filter((fact) => fact['vhost'] === vhost.name)
      .map((fact) => Object.fromEntries(Object.entries(fact).filter(([name]) => name !== 'vhost')));
  return {
    rabbit_version: version,
    rabbitmq_version: version,
    product_name: parts.productName,
    product_version: productVersion,
    rabbitmq_definition_format: 'single_virtual_host',
    original_vhost_name: vhost.name,
    explanation: `Definitions of virtual host '${vhost.name}'`,
    metadata,
    description,
    default_queue_type: type,
    // An empty list if there are none: Erlang's JSON cannot tell.
    limits: Object.keys(described.limits).length === 0 ? [] : described.limits,
    parameters: ofVhost(parameterFacts(directory)),
    policies: ofVhost(directory.policies.list('user').map(policyFact)),
    queues: queueFacts(vhost),
    exchanges: exchangeFacts(vhost),
    bindings: bindingFacts(vhost),
  };
}

/** All but exclusive ones, which end with their connection. */
function queueFacts(vhost: Vhost): Fact[] {
  const facts: Fact[] = [];
  for (const queue of vhost.queues()) {
    const { name, isDurable, isAutoDelete, isExclusive } = queue;
    if (isExclusive) continue;
    facts.push({ name, durable: isDurable, auto_delete: isAutoDelete, arguments: shownArguments(queue) });
  }
  return facts;
}

const isOwnName = (name: string): boolean => name === '' || name.startsWith('amq.');

function exchangeFacts(vhost: Vhost): Fact[] {
  const facts: Fact[] = [];
  for (const { name, type, isDurable, isAutoDelete, isInternal, arguments: table } of vhost.exchanges.all()) {
    if (isOwnName(name)) continue;
    const args = tableToJson(table);
    facts.push({ name, type, durable: isDurable, auto_delete: isAutoDelete, internal: isInternal, arguments: args });
  }
  return facts;
}

function bindingFacts(vhost: Vhost): Fact[] {
  const facts: Fact[] = [];
  for (const { source, destination, destinationKind, routingKey, arguments: table } of vhost.exchanges.bindings()) {
    if (destinationKind === 'queue' && vhost.find(destination)?.isExclusive !== false) continue;
    facts.push({
      source,
      destination,
      destination_type: destinationKind,
      routing_key: routingKey,
      arguments: tableToJson(table),
    });
  }
  return facts;
}

// --- in ---

async function upload(parts: ManagementParts, call: Call): Promise<unknown> {
  const { params, request } = call;
  const body = await request.body(parts.bodyBytesMax);
  const type = request.headers['content-type'];
  const form = typeof type === 'string' ? multipartFields(type, body) : undefined;
  const file = form === undefined ? body : (form.get('file') ?? Buffer.alloc(0));
  let definitions: Fact;
  try {
    definitions = parsed(file);
  } catch {
    throw badRequest('failed_to_parse_json');
  }
  const name = params['vhost'];
  if (name !== undefined && vhostOf(parts, name) === undefined) throw notFound('vhost_not_found');
  await importDefinitions(parts, definitions, { only: name, user: call.user.name });
  const redirect = form
    ?.get('redirect')
    ?.toString()
    .replace(/[\r\n]/g, '');
  return redirect === undefined ? undefined : new Raw(303, 'application/json', '', { location: redirect });
}

/** Of one vhost, or of everything. What is made before something fails stays, as with RabbitMQ. */
async function importDefinitions(
  parts: ManagementParts,
  definitions: Fact,
  { only, user }: { only: string | undefined; user: string },
): Promise<void> {
  const { directory } = parts;
  const each = async (field: string, work: (fact: Fact) => Promise<void> | void): Promise<void> => {
    const list = definitions[field];
    if (!Array.isArray(list)) return;
    for (const [index, fact] of list.entries()) {
      if (typeof fact !== 'object' || fact === null) continue;
      await work(only === undefined ? fact : { ...fact, vhost: only });
      if (index % CHUNK === CHUNK - 1) await durable(parts, only);
    }
  };
  if (only === undefined) {
    checkVhosts(definitions);
    await each('users', (fact) => putUser(directory, textField(fact, 'name'), fact));
    await each('vhosts', async (fact) => {
      const metadata = objectField(fact, 'metadata');
      const name = textField(fact, 'name');
      await putVhost(parts, { ...metadata, ...fact }, user);
      for (const [limit, value] of Object.entries(objectField(fact, 'limits'))) {
        await directory.vhosts.setLimit(name, limit, Number(value));
      }
    });
    const fields = (fact: Fact, names: readonly string[]) =>
      Object.fromEntries(names.map((name) => [name, textField(fact, name)]));
    await each('permissions', async (fact) => {
      const {
        user: whose,
        vhost,
        configure,
        write,
        read,
      } = fields(fact, ['user', 'vhost', 'configure', 'write', 'read']);
      await directory.users.permit({ user: whose, vhost, configure, write, read });
    });
    await each('topic_permissions', async (fact) => {
      const {
        user: whose,
        vhost,
        exchange,
        write,
        read,
      } = fields(fact, ['user', 'vhost', 'exchange', 'write', 'read']);
      await directory.users.permitTopic({ user: whose, vhost, exchange, write, read });
    });
  }
  await each('exchanges', (fact) => addExchange(importing(parts, fact), fact));
  if (only === undefined) {
    await each('global_parameters', async (fact) => {
      // JSON, as it was parsed.
      await directory.parameters.putGlobal(textField(fact, 'name'), (fact['value'] ?? null) as Json);
    });
  }
  await each('policies', (fact) => putPolicy(directory, 'user', fact));
  await each('parameters', (fact) => putParameter(directory, fact));
  await each('queues', (fact) => addQueue(importing(parts, fact), fact));
  await each('bindings', (fact) => addBinding(importing(parts, fact), fact));
  await durable(parts, only);
}

/** Files of one vhost do not name it. */
function checkVhosts(definitions: Fact): void {
  for (const field of ['queues', 'exchanges', 'bindings']) {
    const list = definitions[field];
    if (!Array.isArray(list)) continue;
    if (list.some((fact: Fact) => fact['vhost'] === undefined)) throw badRequest('invalid_definitions_file');
  }
}

function importing(parts: ManagementParts, fact: Fact): Vhost {
  const name = textField(fact, 'vhost');
  const vhost = vhostOf(parts, name);
  if (vhost === undefined) throw badRequest(`Please create virtual host "${name}" prior to importing definitions.`);
  return vhost;
}

function durable(parts: ManagementParts, only: string | undefined): Promise<void> {
  const vhosts = [...vhostsOf(parts, only)];
  return Promise.all(vhosts.map((vhost) => new Promise<void>((resolve) => vhost.whenDurable(resolve)))).then(() => {});
}

/** RabbitMQ's words for what a declaration was refused for. */
function refusing(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!(error instanceof AmqpError)) throw error;
    const [code, ...text] = error.message.split(' - ');
    throw badRequest(`${code.toLowerCase()}: ${text.join(' - ')}`);
  }
}

function addExchange(vhost: Vhost, fact: Fact): void {
  const name = textField(fact, 'name');
  if (isOwnName(name) || vhost.exchanges.get(name) !== undefined) return;
  refusing(() =>
    vhost.declareExchange({
      name,
      type: textField(fact, 'type'),
      isDurable: truthField(fact, 'durable'),
      isAutoDelete: truthField(fact, 'auto_delete'),
      isInternal: truthField(fact, 'internal'),
      arguments: jsonToTable(fact['arguments']),
    }),
  );
}

function addQueue(vhost: Vhost, fact: Fact): void {
  const name = textField(fact, 'name');
  if (name.startsWith('amq.') || vhost.find(name) !== undefined) return;
  const given = jsonToTable(fact['arguments']);
  const type = fact['type'];
  // Written by `rabbitmqctl export_definitions`.
  const isTyped = fieldOf(given, 'x-queue-type') !== undefined || typeof type !== 'string' || type === queueType(given);
  const table = isTyped ? given : [...given, ['x-queue-type', { type: 'S', value: Buffer.from(type) }] as const];
  refusing(() =>
    vhost.declareQueue(
      {
        name,
        isDurable: truthField(fact, 'durable', true),
        isAutoDelete: truthField(fact, 'auto_delete'),
        isExclusive: false,
        arguments: table,
      },
      IMPORTER,
    ),
  );
}

/** Owns nothing: exclusive queues are not imported. */
const IMPORTER = {};

function addBinding(vhost: Vhost, fact: Fact): void {
  const [source, destination, routingKey] = ['source', 'destination', 'routing_key'].map((name) =>
    textField(fact, name),
  );
  const destinationKind = fact['destination_type'] === 'exchange' ? 'exchange' : 'queue';
  const isThere = destinationKind === 'queue' ? vhost.find(destination) : vhost.exchanges.get(destination);
  if (source === '') return;
  if (vhost.exchanges.get(source) === undefined || isThere === undefined) {
    throw new ApiError(
      400,
      'bad_request',
      `a binding from exchange '${source}' to ${destinationKind} '${destination}' in vhost '${vhost.name}' has an end that does not exist`,
    );
  }
  refusing(() =>
    vhost.bind({ source, destination, destinationKind, routingKey, arguments: jsonToTable(fact['arguments']) }),
  );
}

/** Fields of a form (RFC 7578); undefined if it is none. */
function multipartFields(contentType: string, body: Buffer): Map<string, Buffer> | undefined {
  const boundary = /^multipart\/form-data\s*;.*\bboundary=(?:"([^"]+)"|([^;\s]+))/i.exec(contentType);
  if (boundary === null) return undefined;
  const fields = new Map<string, Buffer>();
  const separator = Buffer.from(`--${boundary[1] ?? boundary[2]}`);
  let at = body.indexOf(separator);
  while (at >= 0) {
    const start = at + separator.length;
    const end = body.indexOf(separator, start);
    if (end < 0) break;
    const part = body.subarray(start, end);
    const gap = part.indexOf('\r\n\r\n');
    const name = gap < 0 ? null : /;\s*name="([^"]*)"/i.exec(part.toString('latin1', 0, gap));
    // Between the empty line and the line end in front of the next boundary.
    if (name !== null) fields.set(name[1], part.subarray(gap + 4, part.length - 2));
    at = end;
  }
  return fields;
}
