/*
 * TCP at full speed, and the two other ends that it needs. tcp(7), tuntap.rst of the kernel.
 *
 *   bulk send ADDRESS UID   for each "N MILLISECONDS" on standard input, sends for so long and then "done N MBIT_PER_SECOND"
 *   bulk sink               takes whatever comes to the ports below, by TCP (and throws it away) and UDP (and does not read it)
 *   bulk relay FD FD        copies packets between two TUNs as fast as one thread can
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TCP_PORT 4001
#define UDP_PORT 4000 /* where send.c sends */
#define CHUNK (256 * 1024)
#define MAX_PEERS 64
/* A connection that was idle begins slowly: this long is not counted. */
#define WARM_UP_MS 40

static char data[CHUNK];

static void die(const char *what) {
  perror(what);
  exit(1);
}

static double now_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static int connect_to(const char *address) {
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(TCP_PORT)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(TCP_PORT)};
  int is4 = inet_pton(AF_INET, address, &v4.sin_addr) == 1;
  if (!is4 && inet_pton(AF_INET6, address, &v6.sin6_addr) != 1) exit(64);
  int tcp = socket(is4 ? AF_INET : AF_INET6, SOCK_STREAM, 0);
  const struct sockaddr *to = is4 ? (const void *)&v4 : (const void *)&v6;
  if (tcp < 0 || connect(tcp, to, is4 ? sizeof v4 : sizeof v6) < 0) die("connect");
  return tcp;
}

/* Bytes given to the kernel until `end`. */
static long send_until(int tcp, double end) {
  long sent = 0;
  while (now_ms() < end) {
    ssize_t some = send(tcp, data, sizeof data, MSG_NOSIGNAL);
    if (some < 0) die("send");
    sent += some;
  }
  return sent;
}

static long unacknowledged(int tcp) {
  int bytes = 0;
  if (ioctl(tcp, SIOCOUTQ, &bytes) < 0) die("SIOCOUTQ");
  return bytes;
}

static int run_send(const char *address, int uid) {
  if (setuid(uid)) return 77;
  int tcp = connect_to(address);
  unsigned number, milliseconds;
  while (scanf("%u %u", &number, &milliseconds) == 2) {
    send_until(tcp, now_ms() + WARM_UP_MS);
    long queued = unacknowledged(tcp);
    double start = now_ms();
    long sent = send_until(tcp, start + milliseconds);
    double elapsed = now_ms() - start;
    printf("done %u %f\n", number, (sent + queued - unacknowledged(tcp)) * 8e-3 / elapsed);
    fflush(stdout);
  }
  return 0;
}

static int listen_on(int type, int port) {
  struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  int made = socket(AF_INET6, type, 0);
  if (made < 0 || bind(made, (void *)&any, sizeof any) < 0) die("bind");
  if (type == SOCK_STREAM && listen(made, 16) < 0) die("listen");
  return made;
}

static _Noreturn void run_sink(void) {
  listen_on(SOCK_DGRAM, UDP_PORT);
  struct pollfd peers[MAX_PEERS] = {{.fd = listen_on(SOCK_STREAM, TCP_PORT), .events = POLLIN}};
  int count = 1;
  printf("ready\n");
  fflush(stdout);
  for (;;) {
    if (poll(peers, count, -1) < 0) die("poll");
    for (int at = count - 1; at > 0; at--) {
      if (!peers[at].revents) continue;
      if (recv(peers[at].fd, data, sizeof data, 0) > 0) continue;
      close(peers[at].fd);
      peers[at] = peers[--count];
    }
    if (!peers[0].revents || count == MAX_PEERS) continue;
    peers[count] = (struct pollfd){.fd = accept(peers[0].fd, NULL, NULL), .events = POLLIN};
    if (peers[count].fd >= 0) count++;
  }
}

/* Packets of one TUN into the other, at most 64 so that the other direction gets its turn. */
static void copy(int from, int to) {
  for (int packets = 0; packets < 64; packets++) {
    ssize_t length = read(from, data, sizeof data);
    if (length < 0 && errno == EAGAIN) return;
    if (length < 0) die("read");
    /* A full queue drops, as links do. */
    if (write(to, data, length) < 0 && errno != EAGAIN && errno != EINVAL && errno != ENOBUFS) die("write");
  }
}

static int run_relay(int a, int b) {
  fcntl(a, F_SETFL, fcntl(a, F_GETFL) | O_NONBLOCK);
  fcntl(b, F_SETFL, fcntl(b, F_GETFL) | O_NONBLOCK);
  struct pollfd ends[] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
  for (;;) {
    if (poll(ends, 2, -1) < 0) die("poll");
    if ((ends[0].revents | ends[1].revents) & (POLLERR | POLLHUP | POLLNVAL)) return 0;
    if (ends[0].revents) copy(a, b);
    if (ends[1].revents) copy(b, a);
  }
}

int main(int argc, char **argv) {
  if (argc == 4 && !strcmp(argv[1], "send")) return run_send(argv[2], atoi(argv[3]));
  if (argc == 2 && !strcmp(argv[1], "sink")) run_sink();
  if (argc == 4 && !strcmp(argv[1], "relay")) return run_relay(atoi(argv[2]), atoi(argv[3]));
  return 64;
}
