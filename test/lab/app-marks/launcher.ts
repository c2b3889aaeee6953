/** Starts applications one after the other, each in a scope of its own, and counts the marks of their first sockets. */
export const LAUNCHES = 50;
/** Forks; the child enters a new scope and at once makes a socket, every other time as a new program. */
export const LAUNCHER = `
import os, socket, sys
scratch, count = sys.argv[1], int(sys.argv[2])
LOOK = "import os, socket; os._exit(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).getsockopt(1, 36) >> 24)"
marks = {}
for number in range(count):
    scope = '%s/app-gnome-org.lab.Maps-%d.scope' % (scratch, os.getpid() * 1000 + number)
    pid = os.fork()
    if pid == 0:
        os.mkdir(scope)
        with open(scope + '/cgroup.procs', 'w') as procs: procs.write(str(os.getpid()))
        if number % 2: os.execv(sys.executable, [sys.executable, '-S', '-E', '-c', LOOK])
        os._exit(socket.socket(socket.AF_INET6, socket.SOCK_STREAM).getsockopt(1, 36) >> 24)
    mark = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    marks[mark] = marks.get(mark, 0) + 1
    for attempt in range(1000):
        try: os.rmdir(scope); break
        except OSError: pass
print(' '.join('%d:%d' % each for each in sorted(marks.items())))
`;
