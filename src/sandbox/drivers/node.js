// Keeps a JavaScript interpreter between calls of sandbox_eval: `node -e <this>` inside the sandbox, Node 16 or newer.
//
// A request is one line of JSON and then `bytes` bytes of code, on fd 3. The code runs as at the prompt of a browser's
// developer tools (V8's own mode for that: what a call declares lives on and may be declared again, `await` works
// everywhere). The answer follows what the code printed: on fd 4 between two marks (0x1e) with the call's token; fd 4
// and 5 are stdout and stderr, whatever the code does to those.
(() => {
  const fs = require('fs'), inspector = require('inspector'), net = require('net'), path = require('path');
  const util = require('util'), vm = require('vm'), { createRequire } = require('module'), { pathToFileURL } = require('url');
  const MARK = '\x1e', VALUE_MAX = 3000;
  const REQUESTS = 3, OUT = 4, ERR = 5;

  const writeAll = (fd, text) => {
    let data = Buffer.from(text);
    while (data.length) {
      try {
        data = data.subarray(fs.writeSync(fd, data));
      } catch (error) {
        if (error.code !== 'EAGAIN') throw error;  // a child has made the pipe non-blocking
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
      }
    }
  };

  // -- interrupts ------------------------------------------------------------------------------------------------
  // Node's own watchdog stops code that runs in a vm script, but installs its handler for each script anew, and
  // between two of them SIGINT is deadly. Held from the start on, it is always there.
  let watchdog;
  try {
    watchdog = process.binding('contextify');
    watchdog.startSigintWatchdog();
  } catch {
    watchdog = undefined;
    process.on('SIGINT', () => call && call.interrupt());
  }
  /** Has SIGINT come since the last question? */
  const interruptCame = () => {
    if (!watchdog) return false;
    watchdog.startSigintWatchdog();
    return watchdog.stopSigintWatchdog();
  };

  // -- import ----------------------------------------------------------------------------------------------------
  // Only modules may import, and what V8 runs in its prompt mode may not even call import(): both become calls of a
  // function that can, found under a symbol.
  const IMPORT = Symbol.for('import'), IMPORT_TEXT = 'globalThis[Symbol.for("import")]';
  let base = path.join(process.cwd(), 'eval.js');

  const importFrom = async (specifier, options) => {
    specifier = String(specifier);
    if (/^\.{0,2}\//.test(specifier)) specifier = pathToFileURL(path.resolve(path.dirname(base), specifier)).href;
    // eval: older versions do not know a second argument.
    const load = (name) => (options ? eval('import(name, options)') : import(name));
    try {
      return await load(specifier);
    } catch (error) {
      if (error.code !== 'ERR_MODULE_NOT_FOUND' || specifier.includes(':')) throw error;
      let found;
      try { found = createRequire(base).resolve(specifier); } catch { throw error; }
      return load(pathToFileURL(found).href);
    }
  };
  Object.defineProperty(globalThis, IMPORT, { value: importFrom });
  Object.defineProperty(importFrom, 'meta', {
    get: () => ({ url: pathToFileURL(base).href, filename: base, dirname: path.dirname(base), resolve: (name) => {
      if (/^\.{0,2}\//.test(name)) return pathToFileURL(path.resolve(path.dirname(base), name)).href;
      const found = createRequire(base).resolve(name);
      return path.isAbsolute(found) ? pathToFileURL(found).href : found;
    } }),
  });

  /** The tokens that matter here: words, strings and single signs, with their depth in brackets. */
  const tokensOf = (source) => {
    const tokens = [], templates = [];
    const pattern = /\s+|\/\/[^\n]*|\/\*[^]*?\*\/|"(?:\\[^]|[^"\\\n])*"|'(?:\\[^]|[^'\\\n])*'|[\w$\u0080-\uffff]+|=>|[^]/gy;
    const templatePart = /(?:\\[^]|\$(?!\{)|[^\\`$])*(`|\$\{|$)/gy;
    const regex = /\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/\w*/gy;
    let depth = 0, newline = true;
    const inTemplate = (at) => {
      templatePart.lastIndex = at;
      const found = templatePart.exec(source);
      if (found[1] === '${') templates.push(depth++);
      return templatePart.lastIndex;
    };
    const push = (text, at, end) => {
      tokens.push({ text, at, end, depth, newline });
      newline = false;
    };
    for (let at = 0; at < source.length;) {
      pattern.lastIndex = at;
      let text = pattern.exec(source)[0], end = pattern.lastIndex;
      const last = tokens.length ? tokens[tokens.length - 1].text : ';';
      if (/^\s|^\/[/*]/.test(text)) {
        newline ||= text.includes('\n');
      } else if (text === '`') {
        end = inTemplate(end);
        push('`', at, end);
      } else if (text === '}' && templates[templates.length - 1] === depth - 1) {
        depth = templates.pop();
        end = inTemplate(end);
        push('`', at, end);
      } else if (text === '/' && /^(?:[^\w$"'`)\]}\u0080-\uffff]|=>|return|typeof|case|in|of|await|void|delete|throw|else|do|yield)$/.test(last) &&
                 (regex.lastIndex = at, regex.test(source))) {
        end = regex.lastIndex;
        push('/', at, end);
      } else {
        if (/^[)\]}]$/.test(text)) depth--;
        push(text, at, end);
        if (/^[([{]$/.test(text)) depth++;
      }
      at = end;
    }
    return tokens;
  };

  const isString = (token) => token !== undefined && /^["']/.test(token.text);

  /** `import …` from token i on: [what stands there instead, the token after it]. */
  const importStatement = (tokens, i, source) => {
    let j = i + 1;
    while (j < tokens.length && !isString(tokens[j])) j++;
    if (j === tokens.length) return null;  // wrong anyway: the compiler says so
    const clause = source.slice(tokens[i].end, tokens[j].at).replace(/\/\*[^]*?\*\/|\/\/[^\n]*/g, ' ').replace(/\bfrom\s*$/, '').trim();
    let end = j + 1, options = '';
    if (tokens[end] && /^(with|assert)$/.test(tokens[end].text) && tokens[end + 1]?.text === '{') {
      const open = ++end;
      while (end < tokens.length && !(tokens[end].text === '}' && tokens[end].depth === tokens[open].depth)) end++;
      const given = source.slice(tokens[open].at, tokens[Math.min(end, tokens.length - 1)].end);
      options = `, { with: ${given}, assert: ${given} }`;
      end++;
    }
    const loaded = `await ${IMPORT_TEXT}(${tokens[j].text}${options})`;
    const parts = clause.match(/^(?:([\w$\u0080-\uffff]+)\s*,?\s*)?(?:\*\s*as\s+([\w$\u0080-\uffff]+)|\{([^]*)\})?$/);
    if (parts === null) return null;
    const [, standard, all, names] = parts;
    const wanted = (names || '').split(',').map((name) => name.trim().replace(/\s+as\s+/, ': ')).filter(Boolean);
    if (standard) wanted.unshift(`default: ${standard}`);
    const code = all && standard ? `const ${all} = ${loaded}, {default: ${standard}} = ${all};`
      : all ? `const ${all} = ${loaded};` : wanted.length ? `const {${wanted.join(', ')}} = ${loaded};` : `${loaded};`;
    return [code, end];
  };

  /** `export …`: nobody imports it from here, but what it declares is declared. */
  const exportStatement = (tokens, i) => {
    const next = tokens[i + 1]?.text;
    if (next === 'default') {
      const after = tokens.slice(i + 2, i + 6).map((token) => token.text).filter((text) => !/^(async|\*)$/.test(text));
      const declares = /^(function|class)$/.test(after[0]) && /^[\w$]+$/.test(after[1]) && after[1] !== 'extends';
      return [declares ? '' : 'module.exports.default =', i + 2];
    }
    if (next !== '{' && next !== '*') return ['', i + 1];
    let end = i + 1;
    if (next === '{') while (end < tokens.length && tokens[end].text !== '}') end++;
    else if (tokens[end + 1]?.text === 'as') end += 2;
    end++;
    if (tokens[end]?.text === 'from') end += 2;
    return [';', end];
  };

  /** The code without import and export, with as many lines. */
  const withoutModules = (source) => {
    if (!/\b(import|export)\b/.test(source)) return source;
    const tokens = tokensOf(source);
    let result = '', at = 0;
    for (let i = 0; i < tokens.length;) {
      const { text, depth, newline } = tokens[i], before = tokens[i - 1]?.text, next = tokens[i + 1]?.text;
      const statement = depth === 0 && (newline || before === ';' || before === '}');
      let found = null;
      if (text === 'import' && before !== '.' && next === '(') found = [IMPORT_TEXT, i + 1];
      else if (text === 'import' && next === '.' && tokens[i + 2]?.text === 'meta') found = [`${IMPORT_TEXT}.meta`, i + 3];
      else if (text === 'import' && statement) found = importStatement(tokens, i, source);
      else if (text === 'export' && statement) found = exportStatement(tokens, i);
      if (found === null) {
        i++;
        continue;
      }
      const [code, nextToken] = found, end = tokens[nextToken - 1]?.end ?? source.length;
      const lines = source.slice(tokens[i].at, end).split('\n').length - 1;
      result += source.slice(at, tokens[i].at) + code + '\n'.repeat(lines);
      at = end;
      i = nextToken;
    }
    return result + source.slice(at);
  };

  // -- running code ------------------------------------------------------------------------------------------------
  const session = new inspector.Session();
  session.connect();
  let taken;
  const hand = { take: (value) => { taken = value; } };
  let handId;
  globalThis[Symbol.for('hand')] = hand;
  session.post('Runtime.evaluate', { expression: 'globalThis[Symbol.for("hand")]' }, (_, { result }) => { handId = result.objectId; });
  delete globalThis[Symbol.for('hand')];

  /** The value itself of what the inspector describes. */
  const valueOf = ({ objectId, unserializableValue, value, type }) => {
    if (type === 'undefined') return undefined;
    const argument = objectId ? { objectId } : unserializableValue ? { unserializableValue } : { value };
    session.post('Runtime.callFunctionOn', { objectId: handId, functionDeclaration: 'function (value) { this.take(value); }', arguments: [argument] });
    const value_ = taken;
    taken = undefined;
    return value_;
  };

  const names = new Map();  // a name that V8 takes for a source's: what it stands for
  const sourceName = (name) => {
    const plain = name.replace(/[\s"']/g, '_');
    if (plain !== name) names.set(plain, name);
    return plain;
  };

  class CompileError {
    constructor(error, details) { Object.assign(this, { error, details }); }
  }

  const run = (source, name) => new Promise((resolve, reject) => {
    const expression = `${withoutModules(source)}\n//# sourceURL=${sourceName(name)}`;
    const done = (error, answer) => {
      if (error) return reject(error);
      const { result, exceptionDetails: details } = answer;
      if (!details) return resolve(valueOf(result));
      const thrown = valueOf(result);
      const compiled = thrown instanceof SyntaxError && !details.stackTrace;
      return reject(compiled ? new CompileError(thrown, details) : thrown);
    };
    watched(() => session.post('Runtime.evaluate', { expression, replMode: true, silent: true, objectGroup: 'call' }, done));
  });

  const WORK = Symbol.for('work');
  let workScript;
  /** Calls work so that SIGINT ends it with an exception. */
  const watched = (work) => {
    workScript ||= new vm.Script('globalThis[Symbol.for("work")]()', { filename: 'watched' });
    const started = () => {
      delete globalThis[WORK];
      work();
    };
    Object.defineProperty(globalThis, WORK, { value: started, configurable: true });
    workScript.runInThisContext({ breakOnSigint: true });
  };

  // -- showing ---------------------------------------------------------------------------------------------------------
  const withoutDriver = (text) => {
    text = text.replace(/\n +at (?:Session\.post|new Promise) \((?:node:inspector|<anonymous>)[^\n]*(?:\n +at [^\n]*)*/g, '');
    for (const [plain, name] of names) text = text.split(plain).join(name);
    return text;
  };

  const errorText = (thrown, source, name) => {
    if (thrown instanceof CompileError) {
      const { lineNumber = 0, columnNumber = 0 } = thrown.details;
      const line = source.split('\n')[lineNumber] ?? '';
      return `${name}:${lineNumber + 1}\n${line}\n${' '.repeat(Math.min(columnNumber, line.length))}^\n\n${thrown.error}`;
    }
    try {
      return (thrown instanceof Error ? '' : 'Uncaught ') + withoutDriver(util.inspect(thrown));
    } catch {
      return 'Uncaught exception';
    }
  };

  const valueText = (value) => {
    if (value === undefined) return undefined;
    let text = withoutDriver(util.inspect(value));
    if (text.length > VALUE_MAX) text = `${text.slice(0, VALUE_MAX)}... (${text.length} characters)`;
    // Halves of characters are no JSON to others.
    return text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, '\ufffd');
  };

  // -- calls -------------------------------------------------------------------------------------------------------------
  let call = null;  // the one that runs

  const respond = (fields) => {
    const { token, split } = call.request;
    call = null;
    if (split) writeAll(ERR, MARK + token + MARK);
    const json = JSON.stringify(fields).replace(/[\u007f-\uffff]/g, (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));
    writeAll(OUT, MARK + token + json + MARK);
  };

  const followName = (name, first) => {
    if (!first && !name.startsWith('/')) return;
    base = name.startsWith('/') ? name : path.join(process.cwd(), 'eval.js');
    Object.assign(globalThis, { require: createRequire(base), module: { exports: {} }, __filename: base, __dirname: path.dirname(base) });
    globalThis.exports = globalThis.module.exports;
  };

  const interrupted = Symbol('interrupted');

  /** Resolves to what the code's last expression gives, or rejects; `interrupted` if SIGINT came before. */
  const evaluate = (request, source, first) => new Promise((resolve, reject) => {
    interruptCame();  // what came while nothing ran is forgotten
    call.interrupt = () => reject(interrupted);
    try {
      Object.assign(process.env, request.env);
      if (request.workdir) process.chdir(request.workdir);
      followName(request.name, first);
      run(source, request.name).then(resolve, reject);
    } catch (error) {
      reject(error);
    }
    if (!watchdog) return;
    call.poll = setInterval(() => interruptCame() && reject(interrupted), 20);
    call.poll.unref();
  });

  const answer = async (request, source, first) => {
    const mine = call = { request, failed: false };
    const fields = { exit_code: 0 };
    try {
      const value = await evaluate(request, source, first);
      watched(() => { fields.value = valueText(value); });
    } catch (thrown) {
      delete fields.value;
      const stopped = thrown === interrupted || thrown?.code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED';
      fields.exit_code = stopped ? 130 : 1;
      writeAll(ERR, (stopped ? 'Interrupted' : errorText(thrown, source, request.name)) + '\n');
    }
    clearInterval(mine.poll);
    session.post('Runtime.releaseObjectGroup', { objectGroup: 'call' });
    session.post('Runtime.discardConsoleEntries');
    // What is already due, such as the report of a rejection that nobody handles, still belongs to this call.
    await new Promise(setImmediate);
    if (mine.failed && fields.exit_code === 0) fields.exit_code = 1;
    if (request.once && fields.exit_code === 0) fields.exit_code = process.exitCode || 0;
    if (call === mine) respond(fields);
    return fields.exit_code;
  };

  // -- requests ------------------------------------------------------------------------------------------------------------
  const input = new net.Socket({ fd: REQUESTS, readable: true, writable: false });
  let pending = [], length = 0, header = null, busy = false, first = true, once = false;

  /** The next `bytes` bytes, once they are there. */
  const take = (bytes) => {
    const all = pending.length === 1 ? pending[0] : Buffer.concat(pending);
    pending = [all.subarray(bytes)];
    length -= bytes;
    return all.subarray(0, bytes);
  };

  const next = async () => {
    if (busy) return;
    if (header === null) {
      const end = pending.length ? (pending = [Buffer.concat(pending)])[0].indexOf(10) : -1;
      if (end < 0) return;
      header = JSON.parse(take(end + 1).toString());
    }
    if (length < header.bytes) return;
    const request = header, source = take(header.bytes).toString().replace(/^\ufeff/, '');
    header = null;
    busy = true;
    const wasFirst = first;
    first = false;
    if (request.once) {
      once = true;
      input.unref();
    } else if (wasFirst) {
      // What is left running by one call must not end the others.
      process.on('uncaughtException', (thrown) => {
        if (call) call.failed = true;
        writeAll(ERR, errorText(thrown) + '\n');
      });
    }
    const exitCode = await answer(request, source, wasFirst);
    if (request.once) {
      if (watchdog) watchdog.stopSigintWatchdog();
      if (exitCode) process.exitCode = exitCode;
      return;
    }
    busy = false;
    next();
  };

  // Written at once even to a pipe: nothing is lost when the process ends, and all comes in order.
  for (const stream of [process.stdout, process.stderr]) stream._handle?.setBlocking?.(true);
  // The code has left, or in a fresh process there is nothing more to wait for.
  process.on('exit', (code) => call && respond({ exit_code: code, ended: true }));
  input.on('data', (data) => { pending.push(data); length += data.length; next(); });
  // A single request is followed by the end of input at once, which is not the end of its code.
  const end = () => { if (!once) process.exit(0); };
  input.on('end', end);
  input.on('error', end);
})();
