# Keeps a Python interpreter between calls of sandbox_eval: `python3 -c <this>` inside the sandbox, 3.8 or newer.
#
# A request is one line of JSON and then `bytes` bytes of code, on standard input. The code runs in the module
# __main__, which lives on. What it prints goes to fd 1 and 2 as it is printed; the answer follows on fd 1 between two
# marks (0x1e) with the call's token, so nothing that is printed can be taken for it.
#
# Every start of an interpreter pays for what is imported here: only built-in modules. The rest comes when needed.
import _ast
import _signal
import os
import sys

MARK = "\x1e"
VALUE_MAX = 3000
IMAGES_MAX = 8
IMAGE_BYTES_MAX = 5 * 1024 * 1024
COROUTINE = 0x80  # inspect.CO_COROUTINE

# Bound now: code that replaces os.write, say in a test of its own, must not take the answer away.
read, write, getpid, leave_now = os.read, os.write, os.getpid, os._exit
driver = sys.modules["__main__"]  # a reference, or it would be deleted when another one takes its name
own_pid = getpid()
own_excepthook = sys.excepthook
own_streams = sys.stdout, sys.stderr


# -- descriptors ------------------------------------------------------------------------------------------------

def put_away(fd):
    """A close-on-exec copy, out of the way of programs that count on the next free number."""
    try:
        return os.dup2(fd, 700 + fd, inheritable=False)
    except OSError:  # few descriptors are allowed
        return os.dup(fd)


def take_descriptors():
    """Requests, answers and marks get descriptors of their own: neither code nor its children can read a request,
    and code that closes or replaces its output still gets its answer out."""
    copies = put_away(0), put_away(1), put_away(2)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return copies


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[write(fd, view):]


def say(text):
    """To stderr, past whatever the code has put in its place: who started it must see its errors."""
    write_all(err, text.encode("utf-8", "backslashreplace"))


def flush():
    for stream in (sys.stdout, sys.stderr) + own_streams:
        try:
            stream.flush()
        except Exception:  # None, closed, or something of the user's: all of it is theirs
            pass


# -- JSON, without the 6 ms that importing json takes ---------------------------------------------------------------

class Strict:
    strict, object_hook, object_pairs_hook, memo = True, None, None, {}
    parse_float, parse_int, parse_constant = float, int, float


try:
    from _json import encode_basestring_ascii as quoted, make_scanner
    scan = make_scanner(Strict)

    def parsed(line):
        return scan(line, 0)[0]
except ImportError:  # not CPython
    from json import dumps as quoted, loads as parsed


# -- interrupts ------------------------------------------------------------------------------------------------------
# SIGINT ends the code that runs and nothing else: not the driver, and not the next call.

IDLE, ARMED, RUNNING = range(3)
state, interrupted = IDLE, False


def on_interrupt(_signal_number, frame):
    global state, interrupted
    if state == ARMED:
        interrupted = True
    elif state == RUNNING:
        if frame is not None and frame.f_code is interruptible.__code__:
            state = IDLE  # on the way in or out: no code is left that could catch it, so a second one is too many
        raise KeyboardInterrupt


def interruptible(work, *arguments):
    """Runs what may be interrupted. Returns its value and what it raised."""
    global state, interrupted
    value = error = None
    try:
        try:
            state = RUNNING
            if interrupted:
                raise KeyboardInterrupt
            value = work(*arguments)
        except BaseException as caught:
            error = caught
        state = IDLE
    except KeyboardInterrupt as caught:  # on the way out
        state = IDLE
        error = caught
    interrupted = False
    return value, error


def catch_interrupts():
    if _signal.getsignal(_signal.SIGINT) is not on_interrupt:  # the code has put in its own
        _signal.signal(_signal.SIGINT, on_interrupt)


# -- modules that are completed when, and only when, the code imports them -------------------------------------------

class AfterImport:
    def __init__(self, actions):
        self.actions = actions

    def find_spec(self, name, path=None, target=None):
        if name not in self.actions:
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self else None
            if spec is not None:
                self.follow(name, spec.loader)
                return spec
        return None

    def follow(self, name, loader):
        run = loader.exec_module

        def exec_module(module):
            run(module)
            self.actions.pop(name)(module)

        try:
            loader.exec_module = exec_module
        except AttributeError:  # a loader without room: then without the addition
            del self.actions[name]


# -- the code's own lines, for tracebacks and inspect -------------------------------------------------------------------

sources = {}


def remember(name, text):
    # Not splitlines(): to it, a form feed ends a line, and the compiler counts otherwise.
    lines = [line + "\n" for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    sources[name] = (len(text), None, lines, name)
    if "linecache" in sys.modules:
        fill_linecache(sys.modules["linecache"])


def fill_linecache(linecache):
    linecache.cache.update(sources)


def own_frames(error):
    """The traceback from the first frame of the user's on, without the handler of an interrupt."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename not in sources:
        frames = frames.tb_next
    if frames is None and isinstance(error, Exception):
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_globals is globals():
            frames = frames.tb_next
    last = frames
    while last is not None and last.tb_next is not None:
        if last.tb_next.tb_frame.f_code is on_interrupt.__code__:
            last.tb_next = None
        last = last.tb_next
    return frames


def show_error(error):
    frames = own_frames(error)
    if sys.excepthook is not own_excepthook:
        sys.excepthook(type(error), error, frames)
        return
    import traceback
    fill_linecache(traceback.linecache)
    say("".join(traceback.format_exception(type(error), error, frames)))


def exit_code_of(error):
    """Reports what ended the code, and gives the exit code that a script would have had."""
    if error is None:
        return 0
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xff
        interruptible(lambda: say(str(error.code) + "\n"))
        return 1
    if interruptible(show_error, error)[1] is not None:
        say(type(error).__name__ + "\n")
    return 130 if isinstance(error, KeyboardInterrupt) else 1


# -- images ------------------------------------------------------------------------------------------------------------

images, left_out = [], []
images_folder = None


def new_image_path():
    global images_folder
    if images_folder is None or not os.path.isdir(images_folder):
        for temp in (os.environ.get("TMPDIR"), "/tmp", "/var/tmp", "."):
            path = os.path.join(temp or "/tmp", "images-" + os.urandom(8).hex())
            try:
                os.mkdir(path, 0o700)
            except OSError:
                continue
            images_folder = os.path.abspath(path)
            break
    return os.path.join(images_folder, "%d.png" % (len(images) + len(left_out) + 1))


def keep_image(what, save):
    """save(path) writes a PNG file."""
    if len(images) == IMAGES_MAX:
        left_out.append("%s is not shown: a call shows at most %d images" % (what, IMAGES_MAX))
        return
    try:
        path = new_image_path()
        save(path)
        size = os.path.getsize(path)
    except Exception as error:
        left_out.append("%s is not shown: %s: %s" % (what, type(error).__name__, error))
        return
    images.append(path)
    if size > IMAGE_BYTES_MAX:
        os.unlink(images.pop())
        left_out.append("%s is not shown: %d bytes of PNG are more than %d" % (what, size, IMAGE_BYTES_MAX))


def forget_images(folder_too=False):
    for path in images:
        try:
            os.unlink(path)
        except OSError:
            pass
    del images[:], left_out[:]
    if folder_too and images_folder is not None:
        try:
            os.rmdir(images_folder)
        except OSError:
            pass


def keep_figure(what, figure):
    if len(figure.get_children()) < 2:  # nothing but its background
        return

    def save(path):
        try:
            figure.savefig(path, format="png", bbox_inches="tight")
        except ValueError:  # something lies so far outside that the picture would be too large
            figure.savefig(path, format="png")

    keep_image(what, save)


def keep_open_figures(pyplot):
    figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
    for figure in figures:
        keep_figure("figure %d" % figure.number, figure)
    pyplot.close("all")
    return figures


def replace_show(pyplot):
    """As in a window: what was shown is done with, and the next plot begins a new figure."""
    show_window = pyplot.show

    def show(*arguments, **options):
        if pyplot.get_backend().lower() != "agg":
            return show_window(*arguments, **options)
        keep_open_figures(pyplot)

    show.__doc__ = show_window.__doc__
    pyplot.show = show


def keep_png(value):
    def save(path):
        data = value._repr_png_()
        data = data[0] if isinstance(data, tuple) else data
        with open(path, "wb") as file:
            file.write(data)

    keep_image("the value", save)


def collect_images(value):
    pyplot, figure_module = sys.modules.get("matplotlib.pyplot"), sys.modules.get("matplotlib.figure")
    shown = keep_open_figures(pyplot) if hasattr(pyplot, "get_fignums") else []
    if hasattr(type(value), "_repr_png_"):
        keep_png(value)
    elif hasattr(figure_module, "Figure") and isinstance(value, figure_module.Figure) and value not in shown:
        keep_figure("the value", value)


# -- running code --------------------------------------------------------------------------------------------------------

main = type(sys)("__main__")
main.__builtins__ = sys.modules["builtins"]
future_flags = 0
loop = None


def await_here(coroutine):
    """One event loop for all calls: what a call leaves running goes on while a later one awaits."""
    global loop
    import asyncio
    if loop is None or loop.is_closed():
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except KeyboardInterrupt:
        if not task.done():
            task.cancel()
            try:
                loop.run_until_complete(task)
            except asyncio.CancelledError:
                pass
        raise
    finally:
        if task.done() and not task.cancelled():
            task.exception()  # or asyncio complains that nobody asked


def close_loop():
    """What asyncio.run() does at its end."""
    if loop is None or loop.is_closed() or loop.is_running():
        return
    import asyncio
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def follow_name(name, first):
    """A file's code finds its neighbours and its own name as if it had been started by name."""
    if not first and not name.startswith("/"):
        return
    main.__file__ = name
    sys.argv[:1] = [name]
    if name.startswith("/"):
        folder = os.path.dirname(name)
        if follow_name.folder in sys.path:
            sys.path[sys.path.index(follow_name.folder)] = folder
        else:
            sys.path.insert(0, folder)
        follow_name.folder = folder


follow_name.folder = sys.path[0]  # "", of `python3 -c`


def compiled(part, name, mode):
    global future_flags
    code = compile(part, name, mode, _ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | future_flags, True)
    if "__future__" in code.co_names:  # holds for the rest of the session, as at a prompt
        import __future__
        for feature in __future__.all_feature_names:
            future_flags |= code.co_flags & getattr(__future__, feature).compiler_flag
    return code


async def run_awaiting(parts):
    value = None
    for code in parts:
        value = eval(code, main.__dict__)
        if code.co_flags & COROUTINE:
            value = await value
    return value


def run(parts):
    """Runs the parts of the code. Returns the value of the last one."""
    if any(code.co_flags & COROUTINE for code in parts):
        return await_here(run_awaiting(parts))
    value = None
    for code in parts:
        value = eval(code, main.__dict__)
    return value


def evaluate(request, code, first):
    """Runs the code. Returns the value of its last expression, and how that is shown."""
    os.environ.update(request.get("env") or {})
    if request.get("workdir"):
        os.chdir(request["workdir"])
    name = request["name"]
    follow_name(name, first)
    try:
        source = code.decode("utf-8")
        remember(name, source)
        if source.startswith("\ufeff"):
            source = source[1:]
    except UnicodeDecodeError:  # the compiler says what is wrong, or finds another coding named in it
        source = code
        remember(name, code.decode("utf-8", "replace"))
    flags = _ast.PyCF_ONLY_AST | _ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | future_flags
    tree = compile(source, name, "exec", flags, True)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], _ast.Expr) else None
    parts = [compiled(tree, name, "exec")] if tree.body else []
    if last is not None:
        parts.append(compiled(_ast.Expression(last.value), name, "eval"))
    value = run(parts)
    if value is None:
        return None
    text = repr(value)
    if len(text) > VALUE_MAX:
        text = "%s... (%d characters)" % (text[:VALUE_MAX], len(text))
    return value, text.encode("utf-8", "backslashreplace").decode("utf-8")


def answer(request, code, first):
    """Runs a request's code and sends its answer. Returns the exit code."""
    forget_images()
    result, error = interruptible(evaluate, request, code, first)
    catch_interrupts()
    value, text = result or (None, None)
    result = None
    exit_code = exit_code_of(error)
    error = None
    if getpid() != own_pid:  # the child of a fork has come out of the code: it answers nobody
        flush()
        leave_now(exit_code)
    if interruptible(collect_images, value)[1] is not None:
        left_out.append("not all images are shown: interrupted, or their drawing failed")
    value = None
    interruptible(flush)
    for what in left_out:
        say("[" + what + "]\n")
    # Children that share the pipes may have switched them.
    os.set_blocking(out, True)
    os.set_blocking(err, True)
    token = request["token"]
    if request.get("split"):
        say(MARK + token + MARK)
    fields = '{"exit_code":%d' % exit_code
    if text is not None:
        fields += ',"value":' + quoted(text)
    if images:
        fields += ',"images":[' + ",".join(map(quoted, images)) + "]"
    write_all(out, (MARK + token + fields + "}" + MARK).encode("ascii"))
    return exit_code


# -- requests --------------------------------------------------------------------------------------------------------------

def requests():
    """Pairs of a request and its code, until the pipe ends."""
    buffer = b""
    while True:
        while b"\n" not in buffer:
            data = read(requests_fd, 1 << 16)
            if not data:
                return
            buffer += data
        line, _, buffer = buffer.partition(b"\n")
        request = parsed(line.decode("utf-8"))
        parts, missing = [buffer], request["bytes"] - len(buffer)
        while missing > 0:
            data = read(requests_fd, min(missing, 1 << 20))
            if not data:
                return
            parts.append(data)
            missing -= len(data)
        code = b"".join(parts)
        buffer = code[request["bytes"]:]
        yield request, code[:request["bytes"]]
        request = code = parts = data = None


def end_once(exit_code):
    """As the end of a script: threads are waited for, atexit runs, and SIGINT ends the waiting."""
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    try:
        close_loop()
    except BaseException as error:
        show_error(error)
    sys.exit(exit_code)


def end_session():
    forget_images(folder_too=True)
    try:
        import atexit
        atexit._run_exitfuncs()
    except BaseException:
        pass
    flush()
    leave_now(0)  # threads of the user's may never end


def serve():
    global state
    first = True
    for request, code in requests():
        state = ARMED
        catch_interrupts()
        exit_code = answer(request, code, first)
        if request.get("once"):
            end_once(exit_code)
        first = False
        request = code = None
    end_session()


_signal.signal(_signal.SIGINT, on_interrupt)
requests_fd, out, err = take_descriptors()
os.environ.setdefault("MPLBACKEND", "Agg")  # there is no screen
for stream in own_streams:
    if stream is not None:
        stream.reconfigure(line_buffering=True)  # what is printed comes in order with what children print, and at once
sys.meta_path.insert(0, AfterImport({"linecache": fill_linecache, "matplotlib.pyplot": replace_show}))
sys.argv = [""]
sys.modules["__main__"] = main
serve()
