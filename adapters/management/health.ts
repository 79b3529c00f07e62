/** Checks that load balancers and operators ask: 200 with `status: ok`, or 503 with the reason. */
import { asUser } from './acting.ts';
import { type ManagementParts, vhostOf } from './parts.ts';
import { badRequest, Raw, type Call, type Resource, type Resources } from './resource.ts';

const OK = { status: 'ok' };
const TEST_QUEUE = 'aliveness-test';
/** Names of protocols as people write them → as listeners have them. */
const PROTOCOLS: Readonly<Record<string, string>> = {
  amqp091: 'amqp',
  'amqp0.9.1': 'amqp',
  'amqp0-9-1': 'amqp',
  amqp0_9_1: 'amqp',
  amqps: 'amqp/ssl',
  http1: 'http',
  'http1.1': 'http',
  http_api: 'http',
  management: 'http',
  management_ui: 'http',
  ui: 'http',
  cli: 'clustering',
  distribution: 'clustering',
};
const UNITS: Readonly<Record<string, number>> = { days: 1, weeks: 7, months: 365 / 12, years: 365 };

export function healthResources(parts: ManagementParts): Resources {
  const check = (get: (call: Call) => unknown): Resource => ({ allowed: 'user', get });
  const alarmsCheck = (reason: string): Resource =>
    check(() => {
      const alarms = parts.amqp.alarms.map((resource) => ({ node: parts.nodeName, resource }));
      return alarms.length === 0 ? OK : failed({ reason, alarms });
    });
  return {
    '/health/checks/alarms': alarmsCheck('There are alarms in effect in the cluster'),
    '/health/checks/local-alarms': alarmsCheck('There are alarms in effect on the node'),
    '/health/checks/certificate-expiration/:within/:unit': check(({ params }) => {
      if (!/^[+-]?\d+$/.test(params['within'])) throw badRequest('Invalid expiration value.');
      if (!Object.hasOwn(UNITS, params['unit'].toLowerCase())) {
        throw badRequest('Time unit not recognised. Supported units: days, weeks, months, years.');
      }
      // No listener has a certificate.
      return OK;
    }),
    '/health/checks/port-listener/:port': check(({ params }) => {
      if (!/^\d+$/.test(params['port'])) throw badRequest('Invalid port');
      const port = Number(params['port']);
      const ports = parts.listeners().map((each) => each.port);
      return ports.includes(port) ? { ...OK, port } : failed({ reason: 'No active listener', missing: port, ports });
    }),
    '/health/checks/protocol-listener/:protocol': check(({ params }) => {
      const asked = params['protocol'].toLowerCase();
      const protocol = PROTOCOLS[asked] ?? asked;
      const protocols = parts.listeners().map((each) => each.protocol);
      if (protocols.includes(protocol)) return { ...OK, protocol };
      return failed({ reason: 'No active listener', missing: protocol, protocols });
    }),
    '/health/checks/virtual-hosts': check(() => OK),
    '/health/checks/node-is-quorum-critical': check(() => ({ ...OK, reason: 'single node cluster' })),
    '/healthchecks/node': check(() => OK),
    '/healthchecks/node/:node': { ...check(() => OK), exists: ({ params }) => params['node'] === parts.nodeName },
    '/aliveness-test/:vhost': {
      allowed: 'vhost',
      exists: ({ params }) => vhostOf(parts, params['vhost']) !== undefined,
      get: (call) => aliveness(parts, call),
    },
  };
}

function failed(fact: Readonly<Record<string, unknown>>): Raw {
  return new Raw(503, 'application/json', JSON.stringify({ status: 'failed', ...fact }));
}

/** A message goes through a queue of the vhost. */
function aliveness(parts: ManagementParts, call: Call): Promise<unknown> {
  const { vhost } = call.params;
  return asUser(parts, { call, vhost, style: 'coded' }, async (client) => {
    await client.call({ method: 'queue.declare', queue: TEST_QUEUE });
    await client.publish({ exchange: '', routingKey: TEST_QUEUE }, {}, Buffer.from('test_message'));
    const { method } = await client.call({ method: 'basic.get', queue: TEST_QUEUE, noAck: true });
    return method.method === 'basic.get-ok' ? OK : failed({ reason: 'aliveness-test queue is empty' });
  });
}
