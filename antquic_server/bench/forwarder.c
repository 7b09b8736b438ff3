/*
 * The ceiling of `antquic-server bench relay`: what a channel relay costs without a relay around it.
 *
 * One UDP socket, one thread. Whole GRO trains are taken by recvmmsg and passed on unchanged by sendmmsg with
 * UDP_SEGMENT, to where a table says: key is the first eight bytes and the sender's address. All datagrams of a train
 * must begin with the same eight bytes, else it is dropped: a relay has to look, so this does too.
 *
 * forwarder ADDRESS     prints the port; reads lines "HEADER(16 hex digits) FROM-IP FROM-PORT TO-IP TO-PORT" until an
 *                       empty one; prints "ready"; forwards until it is ended.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SOL_UDP_LEVEL 17
#define UDP_SEGMENT_OPTION 103
#define UDP_GRO_OPTION 104
#ifndef SO_RCVBUFFORCE
#define SO_RCVBUFFORCE 33
#endif

#define BATCH 32
#define MESSAGE_BYTES 65536
#define HEADER_BYTES 8
#define BUCKETS 4096 /* a power of two, several times the sessions of any run */
#define MAX_ROUTES (BUCKETS / 2)

struct route {
    uint64_t header;
    uint32_t host;
    uint16_t port;
    uint16_t used;
    struct sockaddr_in to;
};

static struct route table[BUCKETS];
static unsigned char data[BATCH][MESSAGE_BYTES];
static char control[BATCH][CMSG_SPACE(sizeof(int))];
static struct mmsghdr received[BATCH], sending[BATCH];
static struct iovec vectors[BATCH], out_vectors[BATCH];
static struct sockaddr_in from[BATCH];
static char out_control[BATCH][CMSG_SPACE(sizeof(uint16_t))];

static unsigned bucket(uint64_t header, uint32_t host, uint16_t port)
{
    uint64_t mixed = (header ^ ((uint64_t)host << 16 | port)) * 0x9E3779B97F4A7C15u;
    return (unsigned)(mixed >> 40) & (BUCKETS - 1);
}

static struct route *find(uint64_t header, uint32_t host, uint16_t port)
{
    unsigned at = bucket(header, host, port);
    while (table[at].used && (table[at].header != header || table[at].host != host || table[at].port != port))
        at = (at + 1) & (BUCKETS - 1);
    return &table[at];
}

static uint64_t header_of(const unsigned char *datagram)
{
    uint64_t header;
    memcpy(&header, datagram, sizeof header);
    return header;
}

static int read_routes(void)
{
    char line[256];
    int count = 0;
    while (fgets(line, sizeof line, stdin) && line[0] != '\n') {
        char hex[32], from_ip[64], to_ip[64];
        unsigned from_port, to_port;
        unsigned char header[HEADER_BYTES];
        struct in_addr from_host, to_host;
        if (sscanf(line, "%16s %63s %u %63s %u", hex, from_ip, &from_port, to_ip, &to_port) != 5
            || strlen(hex) != 2 * HEADER_BYTES || ++count > MAX_ROUTES || !inet_aton(from_ip, &from_host)
            || !inet_aton(to_ip, &to_host))
            return -1;
        for (int i = 0; i < HEADER_BYTES; i++) {
            unsigned byte;
            if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
                return -1;
            header[i] = (unsigned char)byte;
        }
        struct route *route = find(header_of(header), from_host.s_addr, htons((uint16_t)from_port));
        route->used = 1;
        route->header = header_of(header);
        route->host = from_host.s_addr;
        route->port = htons((uint16_t)from_port);
        route->to.sin_family = AF_INET;
        route->to.sin_addr = to_host;
        route->to.sin_port = htons((uint16_t)to_port);
    }
    return 0;
}

static uint16_t segment_size(struct msghdr *message, unsigned length)
{
    for (struct cmsghdr *item = CMSG_FIRSTHDR(message); item; item = CMSG_NXTHDR(message, item))
        if (item->cmsg_level == SOL_UDP_LEVEL && item->cmsg_type == UDP_GRO_OPTION) {
            int size;
            memcpy(&size, CMSG_DATA(item), sizeof size);
            return (uint16_t)size;
        }
    return (uint16_t)length;
}

static int is_one_channel(const unsigned char *train, unsigned length, unsigned segment)
{
    uint64_t first;
    if (segment < HEADER_BYTES || length < HEADER_BYTES)
        return 0;
    first = header_of(train);
    for (unsigned at = segment; at < length; at += segment)
        if (length - at < HEADER_BYTES || header_of(train + at) != first)
            return 0;
    return 1;
}

static void prepare(struct msghdr *message, int slot, unsigned length, uint16_t segment, struct route *route)
{
    memset(message, 0, sizeof *message);
    out_vectors[slot].iov_len = length;
    message->msg_iov = &out_vectors[slot];
    message->msg_iovlen = 1;
    message->msg_name = &route->to;
    message->msg_namelen = sizeof route->to;
    if (segment < length) {
        message->msg_control = out_control[slot];
        message->msg_controllen = sizeof out_control[slot];
        struct cmsghdr *item = CMSG_FIRSTHDR(message);
        item->cmsg_level = SOL_UDP_LEVEL;
        item->cmsg_type = UDP_SEGMENT_OPTION;
        item->cmsg_len = CMSG_LEN(sizeof segment);
        memcpy(CMSG_DATA(item), &segment, sizeof segment);
    }
}

static void forward(int sock)
{
    for (int i = 0; i < BATCH; i++) {
        vectors[i] = (struct iovec){.iov_base = data[i], .iov_len = MESSAGE_BYTES};
        received[i].msg_hdr.msg_iov = &vectors[i];
        received[i].msg_hdr.msg_iovlen = 1;
    }
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            received[i].msg_hdr.msg_name = &from[i];
            received[i].msg_hdr.msg_namelen = sizeof from[i];
            received[i].msg_hdr.msg_control = control[i];
            received[i].msg_hdr.msg_controllen = sizeof control[i];
        }
        int count = recvmmsg(sock, received, BATCH, MSG_WAITFORONE, NULL);
        int ready = 0;
        for (int i = 0; i < count; i++) {
            unsigned length = received[i].msg_len;
            uint16_t segment = segment_size(&received[i].msg_hdr, length);
            if (!is_one_channel(data[i], length, segment))
                continue;
            struct route *route = find(header_of(data[i]), from[i].sin_addr.s_addr, from[i].sin_port);
            if (!route->used)
                continue;
            out_vectors[ready].iov_base = data[i];
            prepare(&sending[ready].msg_hdr, ready, length, segment, route);
            ready++;
        }
        for (int done = 0; done < ready;) {
            int sent = sendmmsg(sock, sending + done, (unsigned)(ready - done), 0);
            done += sent > 0 ? sent : 1; /* what the kernel does not take is dropped */
        }
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    int on = 1, buffer = 8 << 20;
    int sock = socket(AF_INET, SOCK_DGRAM, 0);
    if (argc != 2 || sock < 0 || !inet_aton(argv[1], &address.sin_addr)
        || bind(sock, (struct sockaddr *)&address, sizeof address) != 0
        || getsockname(sock, (struct sockaddr *)&address, &size) != 0) {
        perror("forwarder");
        return EXIT_FAILURE;
    }
    setsockopt(sock, SOL_UDP_LEVEL, UDP_GRO_OPTION, &on, sizeof on);
    if (setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer) != 0)
        setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    printf("%u\n", ntohs(address.sin_port));
    fflush(stdout);
    if (read_routes() != 0)
        return EXIT_FAILURE;
    printf("ready\n");
    fflush(stdout);
    forward(sock);
}
