/*
 * What setUp and destroy cost without any language in the way: opens a TUN with a chosen index, writes the vNIC's sysctls,
 * sends rtnetlink messages that were prepared beforehand (so encoding them is not counted), reads the acknowledgements and
 * runs nft's commands through libnftables. rtnetlink(7), tun(4).
 *
 *   setup DIRECTORY LINK IFINDEX IPV6   commands on standard input: up, down; "done N MILLISECONDS" after each
 *
 * DIRECTORY has up.bin and down.bin (chunks: u32 length, then messages of which only the last asks for an answer) and
 * perhaps up.nft and down.nft.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what) {
  perror(what);
  exit(1);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

/* The whole file with a NUL behind it; NULL when there is none. */
static char *load(const char *directory, const char *name, size_t *length) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  FILE *file = fopen(path, "r");
  if (!file) return NULL;
  fseek(file, 0, SEEK_END);
  *length = ftell(file);
  rewind(file);
  char *bytes = malloc(*length + 1);
  if (!bytes || fread(bytes, 1, *length, file) != *length) die(path);
  bytes[*length] = 0;
  fclose(file);
  return bytes;
}

static void send_all(int netlink, const char *chunks, size_t length) {
  static char answer[65536];
  for (size_t at = 0; at < length;) {
    unsigned size;
    memcpy(&size, chunks + at, 4);
    at += 4;
    if (send(netlink, chunks + at, size, 0) != (ssize_t)size) die("send");
    const struct nlmsghdr *last = (const void *)(chunks + at);
    while ((const char *)last + NLMSG_ALIGN(last->nlmsg_len) < chunks + at + size)
      last = (const void *)((const char *)last + NLMSG_ALIGN(last->nlmsg_len));
    at += size;
    for (unsigned sequence = 0; sequence != last->nlmsg_seq;) {
      if (recv(netlink, answer, sizeof answer, 0) < (ssize_t)sizeof(struct nlmsghdr)) die("recv");
      const struct nlmsghdr *header = (const void *)answer;
      const struct nlmsgerr *error = NLMSG_DATA(header);
      if (header->nlmsg_type == NLMSG_ERROR && error->error) {
        fprintf(stderr, "message %u: %s\n", header->nlmsg_seq, strerror(-error->error));
        exit(1);
      }
      sequence = header->nlmsg_seq;
    }
  }
}

static int open_tun(const char *link, unsigned ifindex) {
  int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
  strncpy(request.ifr_name, link, IFNAMSIZ - 1);
  if (tun < 0 || ioctl(tun, TUNSETIFINDEX, &ifindex) < 0 || ioctl(tun, TUNSETIFF, &request) < 0) die("tun");
  return tun;
}

static void write_sysctl(const char *link, const char *name, const char *value) {
  char path[256];
  snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/%s", link, name);
  int file = open(path, O_WRONLY);
  if (file < 0 || write(file, value, 1) != 1) die(path);
  close(file);
}

int main(int argc, char **argv) {
  if (argc != 5) return 64;
  const char *directory = argv[1], *link = argv[2];
  size_t up_length = 0, down_length = 0, ignored;
  char *up = load(directory, "up.bin", &up_length), *down = load(directory, "down.bin", &down_length);
  char *up_nft = load(directory, "up.nft", &ignored), *down_nft = load(directory, "down.nft", &ignored);

  void *context = NULL;
  int (*run)(void *, const char *) = NULL;
  if (up_nft) {
    void *library = dlopen("libnftables.so.1", RTLD_NOW);
    if (!library) return 69;
    void *(*make)(unsigned) = (void *(*)(unsigned))dlsym(library, "nft_ctx_new");
    run = (int (*)(void *, const char *))dlsym(library, "nft_run_cmd_from_buffer");
    context = make(0);
  }

  int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), one = 1, size = 4 << 20;
  setsockopt(netlink, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
  setsockopt(netlink, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);

  char command[16];
  unsigned number;
  int tun = -1;
  while (scanf("%u %15s", &number, command) == 2) {
    double start = now();
    if (!strcmp(command, "up")) {
      tun = open_tun(link, atoi(argv[3]));
      write_sysctl(link, "disable_ipv6", *argv[4] == '1' ? "0" : "1");
      write_sysctl(link, "accept_ra", "0");
      send_all(netlink, up, up_length);
      if (up_nft && run(context, up_nft)) return 1;
    } else if (!strcmp(command, "down")) {
      send_all(netlink, down, down_length);
      close(tun);
      if (down_nft && run(context, down_nft)) return 1;
    }
    printf("done %u %f\n", number, now() - start);
    fflush(stdout);
  }
  return 0;
}
