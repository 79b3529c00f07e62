import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs Kafka's command-line tools inside one JVM, because starting one for each command would cost a second each.
 * A tool gets threads, standard streams and exit code of its own; several may run at a time.
 *
 * Lines in, fields separated by tabs:   run ID CLASS base64(stdin) base64(arg) ...   or   stop ID
 * Lines out: out ID base64(text)   err ID base64(text)   exit ID CODE
 */
public class ToolServer {
    static final class Exited extends Error {
        final int code;

        Exited(int code) {
            super("exit " + code, null, false, false);
            this.code = code;
        }
    }

    static final class Task {
        final String id;
        final InputStream in;
        private final List<Runnable> hooks = new ArrayList<>();
        int code = -1;

        Task(String id, byte[] in) {
            this.id = id;
            this.in = new ByteArrayInputStream(in);
        }

        synchronized void addHook(Runnable hook) {
            hooks.add(hook);
        }

        /** Each hook runs once, whoever comes first: Ctrl-C or the end of the tool. */
        void runHooks() {
            List<Runnable> todo;
            synchronized (this) {
                todo = new ArrayList<>(hooks);
                hooks.clear();
                todo.addAll(takeRuntimeHooks(this));
            }
            for (Runnable hook : todo) hook.run();
        }
    }

    /** Inherited by the threads that a tool starts. */
    static final InheritableThreadLocal<Task> CURRENT = new InheritableThreadLocal<>();
    static final Map<String, Task> TASKS = new ConcurrentHashMap<>();
    static PrintStream wire;

    static synchronized void say(String line) {
        wire.println(line);
        wire.flush();
    }

    /** Passes on whole lines, so that what two threads of a tool print is not torn. */
    static final class TaskOutput extends OutputStream {
        final String kind;
        final Map<Task, ByteArrayOutputStream> pending = new ConcurrentHashMap<>();

        TaskOutput(String kind) {
            this.kind = kind;
        }

        @Override
        public synchronized void write(int b) {
            write(new byte[] {(byte) b}, 0, 1);
        }

        @Override
        public synchronized void write(byte[] bytes, int at, int length) {
            Task task = CURRENT.get();
            if (task == null) return;
            ByteArrayOutputStream line = pending.computeIfAbsent(task, t -> new ByteArrayOutputStream());
            line.write(bytes, at, length);
            if (length > 0 && bytes[at + length - 1] == '\n') emit(task);
        }

        synchronized void emit(Task task) {
            ByteArrayOutputStream line = pending.remove(task);
            if (line == null) return;
            say(kind + "\t" + task.id + "\t" + Base64.getEncoder().encodeToString(line.toByteArray()));
        }
    }

    static final class TaskInput extends InputStream {
        @Override
        public int read() {
            byte[] one = new byte[1];
            return read(one, 0, 1) < 0 ? -1 : one[0] & 255;
        }

        @Override
        public int read(byte[] bytes, int at, int length) {
            Task task = CURRENT.get();
            try {
                return task == null ? -1 : task.in.read(bytes, at, length);
            } catch (java.io.IOException error) {
                return -1;
            }
        }
    }

    /** Some tools go to the runtime for their hook. It belongs to the task whose thread made it. */
    @SuppressWarnings("unchecked")
    static synchronized List<Thread> takeRuntimeHooks(Task task) {
        List<Thread> taken = new ArrayList<>();
        try {
            Field field = Class.forName("java.lang.ApplicationShutdownHooks").getDeclaredField("hooks");
            field.setAccessible(true);
            for (Thread hook : new ArrayList<>(((Map<Thread, Thread>) field.get(null)).keySet()))
                if (taskOf(hook) == task && Runtime.getRuntime().removeShutdownHook(hook)) taken.add(hook);
        } catch (ReflectiveOperationException error) {
            throw new IllegalStateException(error);
        }
        return taken;
    }

    static Object taskOf(Thread thread) throws ReflectiveOperationException {
        Field field = Thread.class.getDeclaredField("inheritableThreadLocals");
        field.setAccessible(true);
        Object locals = field.get(thread);
        if (locals == null) return null;
        Method getEntry = locals.getClass().getDeclaredMethod("getEntry", ThreadLocal.class);
        getEntry.setAccessible(true);
        Object entry = getEntry.invoke(locals, CURRENT);
        if (entry == null) return null;
        Field value = entry.getClass().getDeclaredField("value");
        value.setAccessible(true);
        return value.get(entry);
    }

    public static void main(String[] args) throws Exception {
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        wire = System.out;
        TaskOutput out = new TaskOutput("out");
        TaskOutput err = new TaskOutput("err");
        System.setOut(new PrintStream(out, true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(err, true, StandardCharsets.UTF_8));
        System.setIn(new TaskInput());
        // Before the first task, whose own the hook of the logging would become otherwise.
        org.slf4j.LoggerFactory.getLogger(ToolServer.class);
        Exit.setExitProcedure((code, message) -> {
            Task task = CURRENT.get();
            if (task != null && task.code < 0) task.code = code;
            throw new Exited(code);
        });
        Exit.setHaltProcedure((code, message) -> {
            throw new Exited(code);
        });
        Exit.setShutdownHookAdder((name, hook) -> {
            Task task = CURRENT.get();
            if (task != null) task.addHook(hook);
        });
        say("ready");
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            String[] fields = line.split("\t", -1);
            if (fields[0].equals("stop")) {
                Task task = TASKS.get(fields[1]);
                if (task == null) continue;
                Thread stopper = new Thread(() -> {
                    CURRENT.set(task);
                    task.runHooks();
                });
                stopper.setDaemon(true);
                stopper.start();
                continue;
            }
            Task task = new Task(fields[1], Base64.getDecoder().decode(fields[3]));
            TASKS.put(task.id, task);
            String[] toolArgs = new String[fields.length - 4];
            for (int index = 0; index < toolArgs.length; index++)
                toolArgs[index] = new String(Base64.getDecoder().decode(fields[index + 4]), StandardCharsets.UTF_8);
            Thread runner = new Thread(() -> run(task, fields[2], toolArgs, out, err), "tool-" + task.id);
            runner.setDaemon(true);
            runner.start();
        }
        Runtime.getRuntime().halt(0);
    }

    static void run(Task task, String className, String[] args, TaskOutput out, TaskOutput err) {
        CURRENT.set(task);
        int code = 0;
        try {
            Class.forName(className).getMethod("main", String[].class).invoke(null, (Object) args);
        } catch (java.lang.reflect.InvocationTargetException thrown) {
            Throwable cause = thrown.getCause();
            if (cause instanceof Exited) {
                code = ((Exited) cause).code;
            } else {
                cause.printStackTrace();
                code = 1;
            }
        } catch (Throwable other) {
            other.printStackTrace();
            code = 1;
        }
        // A tool that ended by calling exit may have done so inside a catch of its own; the first code counts.
        if (task.code >= 0) code = task.code;
        // As at the end of a JVM: producers are closed, which sends what they still hold, only in these.
        task.runHooks();
        System.out.flush();
        System.err.flush();
        out.emit(task);
        err.emit(task);
        TASKS.remove(task.id);
        say("exit\t" + task.id + "\t" + code);
    }
}
