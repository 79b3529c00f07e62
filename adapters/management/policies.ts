/** Policies, operator policies, parameters of vhosts, and global parameters. */
import type { Directory } from '../../broker/directory.ts';
import type { Json, JsonObject } from '../../broker/directory-state.ts';
import type { Policy, PolicyKind, PolicyTarget } from '../../broker/policies.ts';
import { visibleVhosts } from './authorize.ts';
import { MillraceError } from '../../protocol/errors.ts';
import { erlangTerm, objectField, textField } from './fields.ts';
import { type Fact, listed } from './listing.ts';
import { limitsFact } from './limits.ts';
import { isVhost, type ManagementParts } from './parts.ts';
import { type ApiError, badRequest, type Call, notFound, type Resource, type Resources } from './resource.ts';

/** Components of RabbitMQ's parameters that are kept elsewhere. */
const OPERATOR_POLICY = 'operator_policy';
const VHOST_LIMITS = 'vhost-limits';

export function policyResources({ directory, clusterId }: ManagementParts): Resources {
  const { parameters } = directory;
  const parametersOf: Resource = {
    allowed: 'policymaker',
    exists: isVhost({ directory }),
    get(call) {
      const { component, vhost } = call.params;
      const seen = visibleVhosts(call.user, directory);
      const found = parameterFacts(directory).filter(
        (fact) =>
          fact['component'] === (component ?? fact['component']) &&
          fact['vhost'] === (vhost ?? fact['vhost']) &&
          seen.has(String(fact['vhost'])),
      );
      return listed(found, call.request.query, { sorts: ['vhost', 'name'] });
    },
  };
  return {
    '/policies': policyList(directory, 'user'),
    '/policies/:vhost': policyList(directory, 'user'),
    '/policies/:vhost/:name': onePolicy(directory, 'user'),
    '/operator-policies': policyList(directory, 'operator'),
    '/operator-policies/:vhost': policyList(directory, 'operator'),
    '/operator-policies/:vhost/:name': onePolicy(directory, 'operator'),
    '/parameters': parametersOf,
    '/parameters/:component': parametersOf,
    '/parameters/:component/:vhost': parametersOf,
    '/parameters/:component/:vhost/:name': {
      allowed: 'policymaker',
      exists: ({ params }) => parameterOf(directory, params) !== undefined,
      get: ({ params }) => parameterOf(directory, params),
      async put(call) {
        const { component, vhost, name } = call.params;
        if (directory.vhosts.get(vhost) === undefined) throw notFound('vhost_not_found');
        const { value } = await call.json(['value']);
        await putParameter(directory, { component, vhost, name, value });
      },
      async remove({ params }) {
        const { component, vhost, name } = params;
        if (component === OPERATOR_POLICY) await directory.policies.delete('operator', vhost, name);
        else if (component === VHOST_LIMITS) await clearLimits(directory, vhost);
        else await parameters.delete(component, vhost, name);
      },
    },
    '/global-parameters': {
      allowed: 'global',
      get: ({ request }) => listed(globalFacts(directory, clusterId), request.query, { sorts: ['vhost', 'name'] }),
    },
    '/global-parameters/:name': {
      allowed: 'global',
      exists: ({ params }) => parameters.getGlobal(params['name']) !== undefined,
      get: ({ params }) => ({ ...parameters.getGlobal(params['name']) }),
      async put(call) {
        const { value } = await call.json(['value']);
        // JSON, as it was parsed.
        await parameters.putGlobal(call.params['name'], value as Json);
      },
      async remove({ params }) {
        await parameters.deleteGlobal(params['name']);
      },
    },
  };
}

function policyList(directory: Directory, kind: PolicyKind): Resource {
  return {
    allowed: 'vhost',
    exists: isVhost({ directory }),
    get({ params, request, user }) {
      const seen = visibleVhosts(user, directory);
      const policies = directory.policies.list(kind, params['vhost']).filter(({ vhost }) => seen.has(vhost));
      return listed(policies.map(policyFact), request.query, { sorts: ['priority'] });
    },
  };
}

function onePolicy(directory: Directory, kind: PolicyKind): Resource {
  const { policies, vhosts } = directory;
  const found = ({ params }: Call): Policy | undefined => policies.get(kind, params['vhost'], params['name']);
  return {
    allowed: kind === 'user' ? 'policymaker' : 'admin',
    exists: (call) => found(call) !== undefined,
    get(call) {
      const policy = found(call);
      return policy && policyFact(policy);
    },
    async put(call) {
      const { vhost, name } = call.params;
      if (vhosts.get(vhost) === undefined) throw notFound('vhost_not_found');
      await putPolicy(directory, kind, { ...(await call.json(['pattern', 'definition'])), vhost, name });
    },
    async remove({ params }) {
      await policies.delete(kind, params['vhost'], params['name']);
    },
  };
}

export function policyFact({ vhost, name, pattern, applyTo, definition, priority }: Policy): Fact {
  return { vhost, name, pattern, 'apply-to': applyTo, definition, priority };
}

/** A policy as a PUT or a definitions file tells of one. */
export async function putPolicy({ policies }: Directory, kind: PolicyKind, body: Fact): Promise<void> {
  const { priority = 0 } = body;
  if (typeof priority !== 'number')
    throw invalid(`priority should be a number, actually was ${erlangTerm(priority)}`, kind);
  try {
    await policies.put(kind, {
      vhost: textField(body, 'vhost'),
      name: textField(body, 'name'),
      pattern: textField(body, 'pattern'),
      // Checked by the store.
      applyTo: textField(body, 'apply-to', 'all') as PolicyTarget,
      priority,
      definition: objectField(body, 'definition') as JsonObject,
    });
  } catch (error) {
    if (error instanceof MillraceError && error.code === 'INVALID_REQUEST') throw invalid(error.message, kind);
    throw error;
  }
}

/** RabbitMQ escapes what it says of users' policies for browsers. */
function invalid(text: string, kind: PolicyKind): ApiError {
  const shown = kind === 'user' ? text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;') : text;
  return badRequest(`Validation failed\n\n${shown}\n`);
}

function parameterOf(directory: Directory, params: Readonly<Record<string, string>>): Fact | undefined {
  const { component, vhost, name } = params;
  return parameterFacts(directory).find(
    (fact) => fact['component'] === component && fact['vhost'] === vhost && fact['name'] === name,
  );
}

/** Of all vhosts, with what RabbitMQ keeps as parameters, too: operator policies and limits of vhosts. */
export function parameterFacts({ parameters, policies, vhosts }: Directory): Fact[] {
  const operator = policies.list('operator').map((policy): Fact => {
    const { vhost, name, ...value } = policyFact(policy);
    return { vhost, component: OPERATOR_POLICY, name, value };
  });
  const limits = vhosts.list().flatMap((vhost): Fact[] => {
    const fact = limitsFact(vhost);
    return fact === undefined ? [] : [{ ...fact, component: VHOST_LIMITS, name: 'limits' }];
  });
  return [...parameters.list().map((parameter) => ({ ...parameter })), ...operator, ...limits];
}

/** Those that RabbitMQ sets itself are there from the start. */
export function globalFacts({ parameters }: Directory, clusterId: string): Fact[] {
  const facts = parameters.listGlobal().map((each): Fact => ({ ...each }));
  const own: readonly Fact[] = [
    { name: 'cluster_tags', value: [] },
    { name: 'internal_cluster_id', value: `millrace-cluster-id-${clusterId}` },
  ];
  return [...own.filter(({ name }) => !facts.some((fact) => fact['name'] === name)), ...facts];
}

/** A parameter as a PUT or a definitions file tells of one. */
export async function putParameter(directory: Directory, body: Fact): Promise<void> {
  const { value } = body;
  const [component, vhost, name] = ['component', 'vhost', 'name'].map((field) => textField(body, field));
  if (component === OPERATOR_POLICY) {
    return putPolicy(directory, 'operator', { ...objectField(body, 'value'), vhost, name });
  }
  if (component === VHOST_LIMITS) {
    await clearLimits(directory, vhost);
    for (const [limit, each] of Object.entries(objectField(body, 'value'))) {
      await directory.vhosts.setLimit(vhost, limit, Number(each));
    }
    return;
  }
  if (component === 'policy') throw badRequest('policies may not be set using this method');
  // JSON, as it was parsed.
  await directory.parameters.put({ component, vhost, name, value: value as Json });
}

async function clearLimits({ vhosts }: Directory, vhost: string): Promise<void> {
  for (const limit of Object.keys(vhosts.required(vhost).limits)) await vhosts.setLimit(vhost, limit, undefined);
}
