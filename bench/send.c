/*
 * Nanoseconds a UDP send takes, unconnected, so that each looks its route up: send ADDRESS UID [SOURCE]
 * For each "N MILLISECONDS" on standard input, sends for so long and then "done N NANOSECONDS".
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e9 + time.tv_nsec;
}

/* The length of the address; 0 when it is none. */
static socklen_t parse(const char *text, int port, struct sockaddr_storage *address) {
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
    memcpy(address, &v4, sizeof v4);
    return sizeof v4;
  }
  if (inet_pton(AF_INET6, text, &v6.sin6_addr) != 1) return 0;
  memcpy(address, &v6, sizeof v6);
  return sizeof v6;
}

int main(int argc, char **argv) {
  if (argc < 3 || argc > 4) return 64;
  struct sockaddr_storage to;
  socklen_t length = parse(argv[1], 4000, &to);
  if (!length || setuid(atoi(argv[2]))) return 77;
  int udp = socket(to.ss_family, SOCK_DGRAM, 0);
  if (argc == 4) {
    struct sockaddr_storage from;
    if (bind(udp, (void *)&from, parse(argv[3], 0, &from))) return 69;
  }

  char data[64] = {0};
  unsigned number, milliseconds;
  while (scanf("%u %u", &number, &milliseconds) == 2) {
    double start = now(), elapsed = 0;
    unsigned sent = 0;
    while (elapsed < milliseconds * 1e6) {
      for (int burst = 0; burst < 100; burst++, sent++)
        if (sendto(udp, data, sizeof data, 0, (void *)&to, length) < 0) {
          perror("sendto");
          return 1;
        }
      elapsed = now() - start;
    }
    printf("done %u %f\n", number, elapsed / sent);
    fflush(stdout);
  }
  return 0;
}
