/*
 * Nanoseconds a UDP send takes, unconnected, so that each looks its route up: send ADDRESS UID
 * For each "N COUNT" on standard input, COUNT sends and then "done N NANOSECONDS".
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

int main(int argc, char **argv) {
  if (argc != 3) return 64;
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(4000)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(4000)};
  int is_v6 = strchr(argv[1], ':') != NULL;
  if (inet_pton(is_v6 ? AF_INET6 : AF_INET, argv[1], is_v6 ? (void *)&v6.sin6_addr : &v4.sin_addr) != 1) return 64;
  const struct sockaddr *to = is_v6 ? (void *)&v6 : (void *)&v4;
  socklen_t length = is_v6 ? sizeof v6 : sizeof v4;
  if (setuid(atoi(argv[2]))) return 77;

  int udp = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_DGRAM, 0);
  char data[64] = {0};
  unsigned number, count;
  while (scanf("%u %u", &number, &count) == 2) {
    double start = now();
    for (unsigned sent = 0; sent < count; sent++)
      if (sendto(udp, data, sizeof data, 0, to, length) < 0) {
        perror("sendto");
        return 1;
      }
    printf("done %u %f\n", number, (now() - start) / count);
    fflush(stdout);
  }
  return 0;
}
