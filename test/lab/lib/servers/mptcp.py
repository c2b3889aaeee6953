"""A server of MPTCP that sends back what it gets. Arguments: port."""
import socket
import sys
import threading

MPTCP = 262


def echo(connection):
    try:
        while data := connection.recv(65536):
            connection.sendall(data)
    except OSError:
        pass
    connection.close()


listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, MPTCP)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("::", int(sys.argv[1])))
listener.listen(16)
print("listening", flush=True)
while True:
    threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()
