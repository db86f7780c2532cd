// Validates recorded messages of the server against the official JSON schema of their revision:
//   node schema_check.mjs SCHEMA_DIR RECORDING.jsonl...
// and structuredContent against the outputSchema that the same recording's tools/list declares.
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import Ajv from 'ajv';
import Ajv2020 from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';

const [schemaDir, ...files] = process.argv.slice(2);
const MODERN = '2026-07-28';
const resultTypes = {
  'initialize': 'InitializeResult', 'server/discover': 'DiscoverResult', 'tools/list': 'ListToolsResult',
  'tools/call': 'CallToolResult', 'resources/list': 'ListResourcesResult', 'resources/read': 'ReadResourceResult',
  'resources/templates/list': 'ListResourceTemplatesResult', 'prompts/list': 'ListPromptsResult',
  'prompts/get': 'GetPromptResult', 'completion/complete': 'CompleteResult', 'ping': 'EmptyResult',
  'tasks/get': 'GetTaskResult', 'tasks/list': 'ListTasksResult', 'tasks/cancel': 'CancelTaskResult',
  'tasks/result': 'CallToolResult', 'tasks/update': 'UpdateTaskResult',
};
// The extension io.modelcontextprotocol/tasks has no part in the schema of 2026-07-28; this is what its own one says.
const task = {
  type: 'object', required: ['resultType', 'taskId', 'status', 'createdAt', 'lastUpdatedAt', 'ttlMs'],
  properties: {
    taskId: { type: 'string' }, statusMessage: { type: 'string' }, createdAt: { type: 'string', format: 'date-time' },
    lastUpdatedAt: { type: 'string', format: 'date-time' }, ttlMs: { type: ['integer', 'null'] }, pollIntervalMs: { type: 'integer' },
    status: { enum: ['working', 'input_required', 'completed', 'failed', 'cancelled'] },
    inputRequests: { $ref: '#/$defs/InputRequests' }, result: { $ref: '#/$defs/CallToolResult' }, error: { $ref: '#/$defs/Error' },
  },
};
const is = (status, field) => ({ if: { properties: { status: { const: status } } }, then: { required: [field] }, else: { not: { required: [field] } } });
const resultType = (name) => ({ properties: { resultType: { const: name } } });
const extension = {
  CreateTaskResult: { allOf: [task, resultType('task'), { not: { required: ['result'] } }, { not: { required: ['error'] } }] },
  GetTaskResult: { allOf: [task, resultType('complete'), is('completed', 'result'), is('failed', 'error'), is('input_required', 'inputRequests')] },
  UpdateTaskResult: { allOf: [resultType('complete'), { not: { required: ['taskId'] } }] },
  CancelTaskResult: { allOf: [resultType('complete'), { not: { required: ['taskId'] } }] },
};
const notificationTypes = {
  'notifications/progress': 'ProgressNotification', 'notifications/message': 'LoggingMessageNotification',
  'notifications/cancelled': 'CancelledNotification', 'notifications/tools/list_changed': 'ToolListChangedNotification',
  'notifications/resources/list_changed': 'ResourceListChangedNotification',
  'notifications/resources/updated': 'ResourceUpdatedNotification',
  'notifications/subscriptions/acknowledged': 'SubscriptionsAcknowledgedNotification',
};

const requestTypes = { 'elicitation/create': 'ElicitRequest' };

const loaded = new Map();
function revision(name) {
  if (!loaded.has(name)) {
    const schema = JSON.parse(readFileSync(path.join(schemaDir, `${name}.json`), 'utf8'));
    const draft2020 = String(schema.$schema).includes('2020-12');
    const ajv = new (draft2020 ? Ajv2020 : Ajv)({ strict: false, allErrors: false, validateFormats: true });
    addFormats(ajv);
    const defs = draft2020 ? '$defs' : 'definitions';
    if (name === MODERN) Object.assign(schema[defs], extension);
    ajv.addSchema(schema, 'mcp');
    loaded.set(name, { ajv, has: (type) => type in schema[defs], validator: (type) => ajv.getSchema(`mcp#/${defs}/${type}`) });
  }
  return loaded.get(name);
}

let checked = 0, structured = 0;
const problems = [], perRevision = {};

function check(where, name, type, value) {
  const r = revision(name);
  if (!r.has(type)) return;
  const validate = r.validator(type);
  if (!validate(value)) {
    const first = validate.errors.slice(0, 3).map((e) => `${e.instancePath || '/'} ${e.message}`).join('; ');
    problems.push(`${where}: not a ${type} of ${name}: ${first}\n    ${JSON.stringify(value).slice(0, 400)}`);
  }
}

// The check of base64 is a regular expression that has no end to its stack.
const shortened = (key, value) => (key === 'data' && typeof value === 'string' ? value.slice(0, 1 << 16) : value);

for (const file of files) {
  const requests = new Map(), outputs = new Map();
  const key = (id) => JSON.stringify(id);
  let negotiated = null;
  const lines = readFileSync(file, 'utf8').split('\n').filter(Boolean);
  lines.forEach((line, index) => {
    const { dir, message } = JSON.parse(line, shortened);
    const where = `${path.basename(file)}:${index + 1}`;
    if (dir === 'out') {
      if (message?.method && 'id' in message) requests.set(key(message.id), message);
      return;
    }
    if (message === null || typeof message !== 'object' || Array.isArray(message) || 'not_json' in message) {
      problems.push(`${where}: the server wrote a line that is no JSON-RPC message: ${line.slice(0, 300)}`);
      return;
    }
    const request = 'id' in message && !message.method ? requests.get(key(message.id)) : undefined;
    if (request) requests.delete(key(message.id));
    const meta = request?.params?._meta ?? {};
    const modern = 'io.modelcontextprotocol/protocolVersion' in meta;
    if (request?.method === 'initialize' && message.result) negotiated = message.result.protocolVersion;
    // An answer to a line that was no request, or to one before initialize, counts for the newest revision.
    const name = modern || negotiated === null ? MODERN : negotiated;
    checked += 1;
    perRevision[name] = (perRevision[name] ?? 0) + 1;
    if (message.error && message.id === null && name !== MODERN) {
      // Legacy schemas have no place for JSON-RPC's own "id": null of an unreadable request.
      check(where, name, 'JSONRPCMessage', { ...message, id: 0 });
    } else if (message.error && message.id === null) {
      const { id, ...rest } = message;
      check(where, name, 'JSONRPCMessage', rest);
    } else {
      check(where, name, 'JSONRPCMessage', message);
    }
    if (message.method && notificationTypes[message.method]) check(where, name, notificationTypes[message.method], message);
    if (message.method && 'id' in message) {
      if (name !== MODERN && requestTypes[message.method]) check(where, name, requestTypes[message.method], message);
      else problems.push(`${where}: a client of ${name} cannot be sent ${message.method}`);
    }
    if (!request || !('result' in message)) return;
    const asked = name === '2025-11-25' && request.params?.task;
    const isTask = request.method === 'tools/call' && (asked || message.result.resultType === 'task');
    const isQuestion = request.method === 'tools/call' && message.result.resultType === 'input_required';
    const type = isTask ? 'CreateTaskResult' : isQuestion ? 'InputRequiredResult' : resultTypes[request.method];
    if (type) check(where, name, type, message.result);
    if (request.method === 'tools/list')
      for (const tool of message.result.tools) {
        try {
          const ajv = new Ajv2020({ strict: true, allowUnionTypes: false });
          addFormats(ajv);
          ajv.compile(tool.inputSchema);
          if (tool.outputSchema) outputs.set(tool.name, ajv.compile(tool.outputSchema));
        } catch (error) {
          problems.push(`${where}: schema of ${tool.name} does not compile: ${error.message}`);
        }
      }
    const output = request.method === 'tools/call' && !isTask && !isQuestion && outputs.get(request.params?.name);
    if (output) {
      structured += 1;
      if (message.result.structuredContent === undefined) {
        problems.push(`${where}: ${request.params.name} declares outputSchema but sent no structuredContent`);
      } else if (!output(message.result.structuredContent)) {
        problems.push(`${where}: structuredContent of ${request.params.name} breaks its outputSchema: ` +
          `${output.errors.map((e) => `${e.instancePath} ${e.message}`).join('; ')}\n    ${JSON.stringify(message.result.structuredContent).slice(0, 400)}`);
      }
    }
  });
}

if (!schemaDir || !existsSync(schemaDir)) throw new Error(`no folder of schemas: ${schemaDir}`);
for (const problem of problems.slice(0, 30)) console.log(`FAIL ${problem}`);
if (problems.length > 30) console.log(`... and ${problems.length - 30} more`);
console.log(`${checked} messages of ${files.length} recordings, ${structured} structured results:`, JSON.stringify(perRevision));
// Nothing checked is no success.
const missing = ['2024-11-05', '2025-03-26', '2025-06-18', '2025-11-25', MODERN].filter((r) => !perRevision[r]);
if (missing.length) console.log(`FAIL no message of revision ${missing.join(', ')} was recorded`);
const failed = problems.length + missing.length;
console.log(`${Math.max(0, checked + structured - problems.length)} passed, ${failed} failed, 0 skipped`);
process.exit(failed ? 1 : 0);
